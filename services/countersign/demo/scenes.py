"""The scenes, in the order of the telling."""

import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from countersign.broker.v1 import broker_pb2 as pb
from countersign.cli.ledger_files import Export
from countersign.cli.ledger_view import entry_rows
from countersign.cli.search_view import print_candidates, print_search
from countersign.client.ledger import LedgerClient
from countersign.demo.stage import (
    BURBANK,
    CANDIDATES,
    DETECTIVE_LAPSED,
    LAPD,
    PERSON,
    SceneFailed,
    Stage,
    expect,
    refusals,
)
from countersign.installation.bundled import gallery_folder
from countersign.ledger.v1 import ledger_pb2
from countersign.type.v1.decision_pb2 import DecisionOutcome, Verdict, VerdictOutcome
from tlog.folder import export_text, verify_folder
from tlog.proof import TlogProof
from tlog.tiles import CHECKPOINT_FILE
from tlog.verify import Failure, NotVerified

VENDOR: Final = "ZZ0000001"
WITNESS_WAIT_S: Final = 30
"""It takes a second or two."""


async def own_case(stage: Stage) -> None:
    """Permitted, answered, verified."""
    stage.say(
        "A detective of the Los Angeles Police Department (LAPD) has a picture of a robber from a "
        "shop's camera. It is LAPD's own case. The detective is trained and on LAPD's list, and asks "
        "the county's booking photographs (LACRIS), which the Sheriff's Department runs."
    )
    search, answer = await stage.submit(stage.facts())
    print_search(stage.console, search)
    expect(search.state == pb.SEARCH_STATE_ANSWERED, "the search is answered")
    expect(
        search.decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
        and not refusals(search)
        and len(search.decision.verdicts) == 5,
        "all five parties were asked, and every one permits",
    )
    expect(answer is not None and answer.candidates is not None, "the answer opens")
    assert answer is not None, "shown by the line above"
    assert answer.candidates is not None, "shown by the line above"
    found = answer.candidates
    print_candidates(stage.console, found)
    scores = [candidate.similarity_score for candidate in found.candidates]
    expect(len(scores) == CANDIDATES, "as many candidates as were asked for")
    expect(scores == sorted(scores, reverse=True), "the candidates are ranked by their scores")
    pictures = [
        hashlib.sha256((gallery_folder() / f"{PERSON}_{number}.jpg").read_bytes()).digest()
        for number in (0, 1)
    ]
    expect(
        found.candidates[0].image_sha256 in pictures,
        "the first candidate is a picture of the person in the probe",
    )
    expect(bool(found.notice), "the list bears its notice")
    stage.console.print()
    stage.shown_true(
        "the first candidate really is another picture of the (drawn, not real) person in the probe"
    )
    saved = stage.verify_receipts_offline(search)
    expect(saved == 2, "there are receipts of the decision and of the end")
    stage.shown_true(
        "both receipts, saved as files, verify with the ledger's public key and without any server"
    )


async def for_another_agency(stage: Stage) -> None:
    """Refused by LAPD."""
    stage.say(
        "The same detective, the same picture, but for a case of the Burbank Police Department. "
        "LAPD's directive of November 2020 forbids searches on behalf of outside agencies. That "
        "every other party would permit it does not help: one refusal is enough."
    )
    search, _ = await stage.submit(stage.facts(beneficiary=BURBANK))
    print_search(stage.console, search)
    _expect_refused(search)
    expect(list(refusals(search)) == [LAPD], "LAPD refuses, and nobody else")
    _expect_rule(refusals(search)[LAPD], "LAPD-3")
    _show_receipt_of_refusal(stage, search)


async def web_scraped_service(stage: Stage) -> None:
    """Refused by LAPD and by the service's own directive."""
    stage.say(
        "Now the detective asks a commercial service with pictures collected from the web. This is "
        "what LAPD personnel had done nearly 475 times before the directive."
    )
    facts = stage.facts()
    facts.system, facts.gallery = "facefind", "facefind-web"
    search, _ = await stage.submit(facts)
    print_search(stage.console, search)
    _expect_refused(search)
    expect({LAPD, VENDOR} <= set(refusals(search)), "LAPD refuses, and so does the service's party")
    _expect_rule(refusals(search)[LAPD], "LAPD-2")
    _show_receipt_of_refusal(stage, search)


async def lapsed_certificate(stage: Stage) -> None:
    """Refused, with what would cure it."""
    stage.say(
        "A colleague takes over the case of the first scene. Everything is as it was there, except "
        "that this detective's training certificate has lapsed. The refusal says what is missing."
    )
    search, _ = await stage.submit(stage.facts(), officer=DETECTIVE_LAPSED)
    print_search(stage.console, search)
    _expect_refused(search)
    expect(list(refusals(search)) == [LAPD], "LAPD refuses, and nobody else")
    unmet = [
        (one.rule_id, one.requirement) for one in refusals(search)[LAPD][0].unmet if one.citation
    ]
    expect(
        len(unmet) == 1 and unmet[0][0] == "LAPD-1" and "certificate" in unmet[0][1],
        "exactly the certificate is named as missing, with its rule",
    )
    _show_receipt_of_refusal(stage, search)


async def nobody_said_for_whom(stage: Stage) -> None:
    """Refused: unknown is not "for ourselves"."""
    stage.say(
        "Last, the request of the first scene again, but nobody says on whose behalf it is made. "
        'Unknown is never read as "for ourselves": where there is doubt, the answer is no.'
    )
    search, _ = await stage.submit(stage.facts(beneficiary=None))
    print_search(stage.console, search)
    _expect_refused(search)
    expect(LAPD in refusals(search), "LAPD refuses")
    _expect_rule(refusals(search)[LAPD], "LAPD-3")
    _show_receipt_of_refusal(stage, search)


async def proved_from_the_ledger(stage: Stage) -> None:
    """Listed, cosigned, exported, verified; the log's word alone does not do, nor a changed byte."""
    stage.say(
        "Everything above is on record: the directives, whole, as their parties published them, and the "
        "refusals like the answer. Names, case numbers and faces are not: of those the ledger has sealed "
        "commitments only."
    )
    folder = stage.folder / "export"
    async with LedgerClient.connect(stage.settings) as ledger:
        wanted = ledger_pb2.ListEntriesRequest()
        records = [record async for record in ledger.entries(wanted)]
        stage.console.print(entry_rows(records))
        _expect_all_on_record(stage, records)
        stage.say(
            "\nThe ledger signs the whole list. But whoever holds its key could show one list to you and "
            "another to a court. So a witness, whom in earnest somebody else runs (a newspaper, a "
            "university, another state), signs too, and never two lists that contradict each other. "
            "Whoever verifies says in a file, a tlog-policy, whose signatures must be there:"
        )
        _show_policy(stage)
        response = await ledger.receipt(len(records) - 1, WITNESS_WAIT_S)
        expect(response.quorum, "the witness has cosigned")
        note = TlogProof.parse(response.receipt.tlog_proof).checkpoint

        async def leaves() -> AsyncIterator[bytes]:
            for record in records:
                yield record.leaf

        await Export(folder, note, [stage.ledger_key]).write(leaves(), lambda done, of: None)
    verified = verify_folder(folder, stage.policy)
    expect(verified.checkpoint.size == len(records), "the export has every entry")
    expect(bool(verified.judged.cosigned), "the policy asks for the witness")
    stage.shown_true(f"offline, with that file alone: {export_text(verified)}")
    _show_that_the_witness_is_needed(stage, note)
    _show_that_a_changed_byte_is_found(stage, records)


def _show_policy(stage: Stage) -> None:
    for line in stage.installation.layout.policy.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            stage.console.print(f"  {line}", style="dim", markup=False, highlight=False)
    stage.console.print()


def _show_that_the_witness_is_needed(stage: Stage, note: str) -> None:
    stage.say("\nThe same copy, with the ledger's own signature and without the witness's:")
    alone = _copy(stage, "alone")
    text, _, signatures = note.rpartition("\n\n")
    of_the_log = [line for line in signatures.splitlines() if f" {stage.ledger_key.name} " in line]
    (alone / CHECKPOINT_FILE).write_text("\n".join([text, "", *of_the_log, ""]), encoding="utf-8")
    _expect_not_verified(stage, alone, Failure.QUORUM_MISSING)
    stage.shown_true("what the ledger alone has signed is not enough")


def _expect_all_on_record(stage: Stage, records: list[ledger_pb2.EntryRecord]) -> None:
    kinds = [(record.entry.WhichOneof("event"), record.entry.search_id) for record in records]
    decided = [search_id for kind, search_id in kinds if kind == "search_decided"]
    expect(decided == stage.decided, "each search was decided on record, in order")
    answered = [search_id for kind, search_id in kinds if kind == "search_answered"]
    expect(answered == stage.decided[:1], "the one answer is on record")
    published = [kind for kind, _ in kinds if kind == "directive_published"]
    expect(len(published) > 0, "the directives themselves are on record")
    others = len(kinds) - len(published)
    expect(others == len(decided) + len(answered), "nothing else is on record")


def _show_that_a_changed_byte_is_found(stage: Stage, records: list[ledger_pb2.EntryRecord]) -> None:
    first = next(one for one in records if one.entry.WhichOneof("event") == "search_decided")
    stage.say(
        f"\nNow somebody who holds a copy changes one byte: entry {first.index}, of the first search, is to "
        "say that another agency asked."
    )
    forged = _copy(stage, "forged")
    bundle = next(path for path in (forged / "tile" / "entries").rglob("*") if path.is_file())
    content = bundle.read_bytes()
    # In that entry: directives, which come before it, name the agency too.
    at = content.index(first.leaf) + first.leaf.index(LAPD.encode()) + len(LAPD) - 3
    bundle.write_bytes(content[:at] + b"9" + content[at + 1 :])
    found = _expect_not_verified(stage, forged, Failure.ENTRY_CHANGED)
    expect(f"entry {first.index} was changed" in found, "it is said which entry was changed")
    stage.shown_true("the copy with one byte changed does not verify")


def _copy(stage: Stage, name: str) -> Path:
    return shutil.copytree(stage.folder / "export", stage.folder / name)


def _expect_not_verified(stage: Stage, folder: Path, wanted: Failure) -> str:
    try:
        verify_folder(folder, stage.policy)
    except NotVerified as error:
        expect(error.failure == wanted, f"what is found to be wrong is {wanted}")
        stage.console.print(f"FAILED: {error}", style="bold red", markup=False, soft_wrap=True)
        return str(error)
    raise SceneFailed("a copy that was changed verifies")


def _expect_refused(search: pb.Search) -> None:
    expect(search.state == pb.SEARCH_STATE_REFUSED, "the search is refused")
    expect(not search.HasField("answer"), "nothing was searched")


def _expect_rule(verdicts: list[Verdict], rule_id: str) -> None:
    expect(
        any(
            rule.id == rule_id and bool(rule.title) and bool(rule.citation)
            for verdict in verdicts
            if verdict.outcome == VerdictOutcome.VERDICT_OUTCOME_FORBID
            for rule in verdict.rules
        ),
        f"the refusal names rule {rule_id}, its title and where it is written",
    )


def _show_receipt_of_refusal(stage: Stage, search: pb.Search) -> None:
    expect(stage.verify_receipts_offline(search) == 1, "the refusal has its receipt")
    stage.console.print()
    stage.shown_true("the refusal has a receipt too, and it verifies offline")


SCENES: Final[tuple[tuple[str, Callable[[Stage], Awaitable[None]]], ...]] = (
    ("A detective's own case", own_case),
    ("The same on behalf of another agency", for_another_agency),
    ("A commercial service with pictures from the web", web_scraped_service),
    ("A training certificate that has lapsed", lapsed_certificate),
    ("Nobody says on whose behalf", nobody_said_for_whom),
    ("The record, its witness, and a forgery that is found", proved_from_the_ledger),
)
