"""The documents of a ledger make the same directives for whoever applies them, or are refused."""

import dataclasses
from datetime import date
from typing import Any

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from directive import holdings
from directive.findings import DirectiveRefused
from directive.holdings import Holdings
from directive.signature import Signers
from support.directives import LAPD, LASD, NOON, vocabulary
from support.documents import (
    KNOWN,
    NAME,
    handed_in,
    published,
    renamed,
    withdrawal_note,
    world,
)
from support.ledgers import ORIGIN

BEFORE, AFTER = date(2026, 12, 31), date(2027, 1, 1)


def holding(*names: str) -> Holdings:
    now = Holdings()
    for index, name in enumerate(names):
        now = holdings.apply(now, index, published(handed_in(name), now), world())
    return now


def withdrawn(now: Holdings, until: date, by: str | None = None) -> Entry:
    held = now.held[NAME]
    return holdings.withdrawn(held, until, withdrawal_note(held, until, by), now.head)


def refusal(now: Holdings, entry: Entry) -> str:
    with pytest.raises(DirectiveRefused) as refused:
        holdings.apply(now, 99, entry, world())
    return refused.value.findings[0].guard


def rules_on(now: Holdings, day: date) -> list[str]:
    found = now.book(vocabulary()).slice(LAPD, day)
    return [] if found is None else [version.name for version in found.versions]


@pytest.mark.promise(9)
def test_what_is_held_follows_from_the_documents_alone() -> None:
    now = holding(NAME, "lasd-lacris-operator")
    held = now.held[NAME]
    request = handed_in(NAME)
    assert (held.document.manifest_text, held.document.rules_text, held.cases) == (
        request.manifest,
        request.rules,
        request.cases,
    )
    assert (held.index, held.received, now.head) == (0, NOON, 1)
    assert rules_on(now, AFTER) == [NAME]
    assert holding(NAME, "lasd-lacris-operator").held.keys() == now.held.keys()


def test_a_directive_ends_on_the_day_when_another_takes_its_place() -> None:
    before = holding(NAME)
    later = handed_in(manifest=renamed("lapd-2027", "2027-01-01"))
    now = holdings.apply(before, 7, published(later, before), world())
    assert rules_on(now, BEFORE) == [NAME]
    assert rules_on(now, AFTER) == ["lapd-2027"]
    assert now.held[NAME].replaced_by == "lapd-2027"
    # Nothing that was decided before is decided otherwise by what was held then.
    assert rules_on(before, AFTER) == [NAME]


def test_a_withdrawn_directive_has_no_effect_from_its_day_on() -> None:
    before = holding(NAME)
    now = holdings.apply(before, 3, withdrawn(before, AFTER), world())
    assert (rules_on(now, BEFORE), rules_on(now, AFTER)) == ([NAME], [])
    assert now.held[NAME].withdrawn_index == 3


def test_attack_an_end_is_put_off() -> None:
    before = holding(NAME)
    now = holdings.apply(before, 3, withdrawn(before, BEFORE), world())
    assert refusal(now, withdrawn(now, AFTER)) == "ENDED"


@pytest.mark.promise(9)
@pytest.mark.parametrize("previous", [None, 0, 2])
def test_attack_a_document_is_left_out(previous: int | None) -> None:
    now = holding(NAME, "lasd-lacris-operator")
    entry = published(handed_in("us-ca-no-restriction"), now)
    entry.ClearField("previous_document")
    if previous is not None:
        entry.previous_document = previous
    assert refusal(now, entry) == "CHAIN_BROKEN"


def set_field(name: str, value: Any) -> Any:
    return lambda event: setattr(event, name, value)


@pytest.mark.parametrize(
    "change",
    [
        set_field("party", LASD),
        set_field("sha256", bytes(32)),
        set_field("source_sha256", bytes(32)),
        set_field("replaces_sha256", bytes(32)),
        set_field("name", "lapd-2099"),
        lambda event: event.effective_from.FromDatetime(NOON),
        lambda event: event.effective_until.FromDatetime(NOON),
    ],
)
def test_attack_an_entry_that_says_otherwise_than_its_text(change: Any) -> None:
    entry = published(handed_in(), Holdings())
    change(entry.directive_published)
    assert refusal(Holdings(), entry) == "ENTRY_CONTRADICTS"


@pytest.mark.parametrize(
    ("by", "guard"), [("", "SIGNATURE_MISSING"), ("stranger", "SIGNATURE_OTHER_PARTY")]
)
def test_attack_a_directive_that_its_party_did_not_sign(by: str, guard: str) -> None:
    assert refusal(Holdings(), published(handed_in(by=by), Holdings())) == guard


def test_attack_a_text_is_changed_after_it_was_signed() -> None:
    request = handed_in()
    request.cases += "# nothing\n"
    assert refusal(Holdings(), published(request, Holdings())) == "SIGNATURE_OF_OTHER_BYTES"


def test_attack_another_party_withdraws_it() -> None:
    now = holding(NAME)
    with pytest.raises(DirectiveRefused) as refused:
        holdings.apply(now, 9, withdrawn(now, AFTER, by=LASD), world())
    (finding,) = refused.value.findings
    # Not the file beside the directive: that one is well, and says something else.
    assert (finding.guard, finding.file) == ("SIGNATURE_OTHER_PARTY", f"withdrawal of {NAME}")


def test_attack_a_signature_for_another_day() -> None:
    now = holding(NAME)
    entry = withdrawn(now, AFTER)
    entry.directive_withdrawn.effective_until.CopyFrom(holdings.midnight(BEFORE))
    assert refusal(now, entry) == "SIGNATURE_OF_OTHER_BYTES"


def test_attack_a_withdrawal_of_another_text() -> None:
    now = holding(NAME)
    entry = withdrawn(now, AFTER)
    entry.directive_withdrawn.sha256 = bytes(32)
    assert refusal(now, entry) == "ENTRY_CONTRADICTS"


def test_a_name_is_used_once() -> None:
    now = holding(NAME)
    assert refusal(now, published(handed_in(rules=[("only", "merely")]), now)) == "NAME_TAKEN"


@pytest.mark.parametrize(
    ("held", "replaces", "day"),
    [
        ((), NAME, "2027-01-01"),
        ((NAME, "lasd-lacris-operator"), "lasd-lacris-operator", "2027-01-01"),
        ((NAME,), NAME, "2019-01-01"),
    ],
)
def test_only_the_partys_own_earlier_directive_can_be_replaced(
    held: tuple[str, ...], replaces: str, day: str
) -> None:
    now = holding(*held)
    changes = renamed("lapd-2027", day)
    changes[0] = (changes[0][0], changes[0][1].replace(f'"{NAME}"', f'"{replaces}"'))
    assert refusal(now, published(handed_in(manifest=changes), now)) == "REPLACES"


def test_a_directive_is_replaced_once() -> None:
    now = holding(NAME)
    first = handed_in(manifest=renamed("lapd-2027", "2027-01-01"))
    now = holdings.apply(now, 5, published(first, now), world())
    second = handed_in(manifest=renamed("lapd-2028", "2028-01-01"))
    assert refusal(now, published(second, now)) == "REPLACES"


def test_what_is_no_document_is_refused() -> None:
    entry = Entry()
    entry.heartbeat.witnessed_size = 1
    assert refusal(Holdings(), entry) == "DOCUMENT_UNKNOWN"


def test_a_withdrawal_of_what_nobody_published_is_refused() -> None:
    now = holding(NAME)
    entry = withdrawn(now, AFTER)
    entry.directive_withdrawn.name = "nobodys"
    assert refusal(now, entry) == "DIRECTIVE_UNKNOWN"


def test_where_nobody_is_asked_who_wrote_it_no_signature_is_needed() -> None:
    unsigned = published(handed_in(by=""), Holdings())
    assert NAME in holdings.apply(Holdings(), 0, unsigned, world(signers=None)).held


def test_what_is_new_names_the_log_and_what_is_on_record_without_stays() -> None:
    """Or whoever has the folder could publish it at another installation."""
    here = world(Signers(KNOWN.by_party, ORIGIN))
    on_record = dataclasses.replace(here, known=None)
    for log, said in (("", "no log in particular"), ("other.example/log", "other.example/log")):
        entry = published(handed_in(log=log), Holdings())
        with pytest.raises(DirectiveRefused, match=f"signed for {said}, and this is {ORIGIN}"):
            holdings.apply(Holdings(), 0, entry, here)
    now = holdings.apply(Holdings(), 0, published(handed_in(log=""), Holdings()), on_record)
    assert (
        now.held
        == holdings.apply(Holdings(), 0, published(handed_in(log=""), Holdings()), world()).held
    )
    with pytest.raises(DirectiveRefused, match="SIGNED_FOR_OTHER_LOG"):
        holdings.apply(
            Holdings(), 0, published(handed_in(log="other.example/log"), Holdings()), on_record
        )
    for log, world_of in (("", here), ("other.example/log", on_record)):
        note = withdrawal_note(now.held[NAME], BEFORE, log=log)
        entry = holdings.withdrawn(now.held[NAME], BEFORE, note, now.head)
        with pytest.raises(DirectiveRefused, match="SIGNED_FOR_OTHER_LOG"):
            holdings.apply(now, 1, entry, world_of)
