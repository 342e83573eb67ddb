"""`search explain` and `directive replay` over a ledger that runs: by right, on record, with exit codes."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from countersign.cli.main import exit_code
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.type.v1.decision_pb2 import DecisionOutcome, VerdictOutcome
from countersign.type.v1.search_pb2 import OffenceSeverity
from directive.evaluate import Evaluator
from shared.registry import Registry
from support.directives import (
    DIRECTIVES,
    FORBID,
    NOON,
    TRAINED,
    manifest,
    ordinary,
    registry,
    shipped_book,
)
from support.disclosures import (
    AUTHORITY,
    COMMISSION,
    POLICE,
    REASON,
    Caller,
    LedgerUnderTest,
    ledger_in,
)
from support.documents import handed_in, renamed, write
from support.ledgers import search_id
from support.nats_servers import nats_in
from support.recorded_history import Drawn, pending_entry
from support.terminals import Said

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUND = ("--authority", AUTHORITY, "--reason", REASON)
FELONIES = FORBID.replace("LAPD-9", "LAPD-77") + (
    'unless { context.severity == Countersign::OffenceSeverity::"violentFelony" };'
)


def searched(number: int, *, checked: bool = False, **facts: Any) -> PendingEntry:
    """A search as the shipped directives decide it."""
    asked = ordinary(search_id=search_id(number), **facts)
    evaluator = Evaluator(shipped_book(), registry())
    return pending_entry(Drawn(asked, TRAINED, NOON), evaluator, registry(), checked=checked)


def felony(number: int) -> PendingEntry:
    offence = ordinary().offence
    offence.severity = OffenceSeverity.OFFENCE_SEVERITY_FELONY
    return searched(number, offence=offence)


def false(number: int) -> PendingEntry:
    """A permit of what every party forbids."""
    pending = searched(number, purpose=8)
    decision = pending.entry.search_decided.decision
    decision.outcome = DecisionOutcome.DECISION_OUTCOME_PERMITTED
    for verdict in decision.verdicts:
        verdict.outcome = VerdictOutcome.VERDICT_OUTCOME_PERMIT
    return pending


@dataclass
class Commands:
    """The command line, with a configuration for who calls."""

    ledger: LedgerUnderTest
    capsys: pytest.CaptureFixture[str]

    async def run(
        self, *arguments: object, who: Caller = COMMISSION, directives: Path = DIRECTIVES
    ) -> Said:
        self.capsys.readouterr()
        config = ("--config", str(self.ledger.config(who)), "--directives", str(directives))
        code = await asyncio.to_thread(exit_code, [*map(str, arguments), *config])
        return Said(code, *self.capsys.readouterr())

    async def kinds(self) -> list[str]:
        return [str(entry.WhichOneof("event")) for _, entry in await self.ledger.entries()]


@contextlib.asynccontextmanager
async def with_searches(folder: Path) -> AsyncIterator[LedgerUnderTest]:
    """An ordinary search (0), a refused one (1), a felony (2), a dry run (3), a commercial search (4)."""
    with nats_in(folder) as nats:
        async with ledger_in(folder, nats) as ledger:
            await ledger.append(
                searched(0),
                searched(1, purpose=7),
                felony(2),
                searched(3, checked=True),
                searched(9, system="facefind", gallery="facefind-web"),
            )
            yield ledger


@pytest_asyncio.fixture(name="history", scope="module", loop_scope="module")
async def _history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LedgerUnderTest]:
    """For all tests that only read, which is on record as well."""
    async with with_searches(tmp_path_factory.mktemp("history")) as ledger:
        yield ledger


@pytest.fixture(name="reading")
def _reading(history: LedgerUnderTest, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(history, capsys)


@pytest_asyncio.fixture(name="commands", loop_scope="module")
async def _commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Commands]:
    """For a test that changes what there is."""
    async with with_searches(tmp_path) as ledger:
        yield Commands(ledger, capsys)


@pytest.fixture(name="proposal")
def _proposal(tmp_path: Path) -> Path:
    folder = tmp_path / "felonies-only"
    folder.mkdir()
    text = manifest(name="felonies-only", effective_from="2030-01-01")
    (folder / "directive.toml").write_text(text)
    (folder / "rules.cedar").write_text(FELONIES)
    (folder / "cases.yaml").write_text("cases: []\n")
    return folder


async def test_a_decision_is_explained_with_its_rules_and_sentences(reading: Commands) -> None:
    before = (await reading.kinds()).count("opening_read")
    said = await reading.run("search", "explain", search_id(1), *GROUND)
    assert said.code == 0
    assert "EXPLAINED" in said.out
    assert "LAPD-PC-1" in said.out
    said = await reading.run("search", "explain", search_id(0), *GROUND, "--json")
    assert said.code == 0
    assert (said.document["explained"], said.document["differences"]) == (True, [])
    assert said.document["decision"]["outcome"] == "DECISION_OUTCOME_PERMITTED"
    assert (await reading.kinds()).count("opening_read") == before + 2


async def test_the_sentence_of_the_source_is_shown(reading: Commands) -> None:
    said = await reading.run("search", "explain", search_id(9), *GROUND)
    assert "shall not use third-party commercial facial recognition services" in said.out


async def test_the_sentence_is_that_of_the_text_that_was_applied(
    reading: Commands, tmp_path: Path
) -> None:
    """A later text of the directive is there already, with another sentence beside the same rule."""
    folder = tmp_path / "directives"
    shutil.copytree(DIRECTIVES, folder)
    sentence = "Department personnel shall not use third-party commercial"
    later = handed_in(
        manifest=renamed("lapd-later", "2030-01-01"), rules=[(sentence, "Nobody ever used")]
    )
    write(folder, later)
    said = await reading.run("search", "explain", search_id(9), *GROUND, directives=folder)
    assert (said.code, sentence in said.out, "Nobody ever used" in said.out) == (0, True, False)
    as_json = ("search", "explain", search_id(9), *GROUND, "--json")
    said = await reading.run(*as_json, directives=folder)
    assert said.document["sentences"]["LAPD-2"].startswith(sentence)


async def test_a_dry_run_is_explained_by_its_entry(reading: Commands) -> None:
    said = await reading.run("search", "explain", "--index", 3, *GROUND)
    assert (said.code, "EXPLAINED" in said.out) == (0, True)


async def test_what_is_not_at_hand_is_said(reading: Commands, tmp_path: Path) -> None:
    other = tmp_path / "registry.toml.other"
    text = (DIRECTIVES / "demo-registry.toml").read_text()
    other.write_text(text.replace("active = false", "active = true"))
    assert Registry.load(other).sha256 != registry().sha256
    said = await reading.run(
        "search", "explain", search_id(0), *GROUND, "--registry", other, "--json"
    )
    assert said.code == 1
    assert [one["what"] for one in said.document["differences"]] == ["VOCABULARY_OR_REGISTRY"]
    assert not said.document["contradicts"]


async def test_a_decision_that_contradicts_its_rules_has_an_exit_code_of_its_own(
    commands: Commands, proposal: Path
) -> None:
    await commands.ledger.append(false(8))
    said = await commands.run("search", "explain", search_id(8), *GROUND)
    assert said.code == 7
    assert "NOT EXPLAINED" in said.out
    said = await commands.run("directive", "replay", proposal, *GROUND, "--json")
    assert (said.code, said.document["sound"]) == (7, False)
    assert said.document["self_check"]["entries"] == [5]
    said = await commands.run("directive", "replay", proposal, *GROUND)
    assert "NOT TO BE RELIED ON" in said.out


async def test_what_was_destroyed_is_not_explained(commands: Commands, proposal: Path) -> None:
    await commands.ledger.approve(POLICE, await commands.ledger.request(COMMISSION, 0))
    said = await commands.run("search", "explain", search_id(0), *GROUND)
    assert (said.code, "its openings were destroyed" in said.out) == (1, True)
    said = await commands.run("directive", "replay", proposal, *GROUND, "--json")
    assert (said.code, said.document["cannot_say"]) == (0, {"its openings were destroyed": 1})


async def test_explaining_takes_a_right_and_a_search(reading: Commands) -> None:
    assert (await reading.run("search", "explain", *GROUND)).code == 2
    said = await reading.run("search", "explain", search_id(77), *GROUND)
    assert (said.code, "SEARCH_UNKNOWN" in said.err) == (3, True)
    texas: Caller = ("oversight", "texas")
    said = await reading.run("search", "explain", search_id(0), *GROUND, who=texas)
    assert (said.code, "NOT_ENTITLED" in said.err) == (3, True)


async def test_a_replay_says_what_would_have_been_refused(
    reading: Commands, proposal: Path, tmp_path: Path
) -> None:
    report, page = tmp_path / "report.md", tmp_path / "report.html"
    before = len(await reading.ledger.entries("requests_read"))
    said = await reading.run(
        *("directive", "replay", proposal, "--since", "2020-01-01", "--until", "2999-01-01"),
        *("--with-checks", "--sample", 1, "--markdown", report, "--html", page, *GROUND),
    )
    assert said.code == 0, said.err
    assert "SOUND" in said.out
    assert "permitted, would be refused" in said.out
    for written in (report.read_text(), page.read_text()):
        assert "LAPD-77" in written
        assert TRAINED not in written
        assert "26-0001" not in written
    assert (tmp_path / "report.svg").read_text().startswith("<svg")
    read = [entry.requests_read for _, entry in await reading.ledger.entries("requests_read")]
    assert [(one.found, list(one.fields), one.with_checks) for one in read[before:]] == [
        (5, ["officer", "case_number"], True)
    ]
    said = await reading.run("directive", "replay", proposal, *GROUND, "--json")
    document = json.loads(said.out)
    assert document["outcomes"] == {
        "SAME": 3,
        "OTHER_REASONS": 0,
        "TO_REFUSED": 1,
        "TO_PERMITTED": 0,
        "CANNOT_SAY": 0,
    }
    assert document["by_rule"]["LAPD-77"]["TO_REFUSED"] == 1
    assert [one["index"] for one in document["examples"]] == [2]
    assert document["engine"]["changes_confirmed"] == 1
    said = await reading.run(
        "directive", "replay", proposal, "--until", "2020-01-01", *GROUND, "--json"
    )
    assert said.document["searches"] == 0


async def test_without_a_folder_and_without_documents_nothing_is_known(
    reading: Commands, proposal: Path
) -> None:
    config = ("--config", str(reading.ledger.config(COMMISSION)))
    explained = ["search", "explain", search_id(0), *GROUND, *config, "--json"]
    assert await asyncio.to_thread(exit_code, explained) == 1
    assert "name their folder" in reading.capsys.readouterr().out
    tried = ["directive", "replay", str(proposal), *GROUND, *config]
    assert await asyncio.to_thread(exit_code, tried) == 2


async def test_a_proposal_that_a_guard_refuses_is_not_replayed(
    reading: Commands, proposal: Path
) -> None:
    before = (await reading.kinds()).count("requests_read")
    (proposal / "rules.cedar").write_text(FELONIES.replace("@citation", "@note"))
    said = await reading.run("directive", "replay", proposal, *GROUND, "--json")
    assert said.code == 1
    assert said.document["findings"]
    assert (await reading.kinds()).count("requests_read") == before


async def test_a_proposal_counts_by_the_dates_that_are_asked_for(
    reading: Commands, proposal: Path
) -> None:
    ask = ("directive", "replay", proposal, *GROUND)
    said = await reading.run(*ask, "--as-of", "legal")
    assert said.code == 0
    assert "by its legal dates, from 2030-01-01" in said.out
    assert "would be refused" in said.out
    said = await reading.run(*ask, "--as-of", "legal", "--json")
    assert said.document["outcomes"]["TO_REFUSED"] == 0
    as_received = (*ask, "--as-of", "received")
    said = await reading.run(*as_received)
    assert (said.code, "--received DAY" in said.err) == (2, True)
    said = await reading.run(*ask, "--received", "2026-05-01")
    assert (said.code, "--as-of received" in said.err) == (2, True)
    manifest_file = proposal / "directive.toml"
    manifest_file.write_text(manifest_file.read_text().replace("2030-01-01", "2026-01-01"))
    for day, refused in (("2026-05-01", 1), ("2026-06-02", 0)):
        said = await reading.run(*as_received, "--received", day, "--json")
        assert (said.code, said.document["outcomes"]["TO_REFUSED"]) == (0, refused), said.err
        assert said.document["proposal"]["received"].startswith(day)
