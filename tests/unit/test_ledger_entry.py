"""Completing entries: what the ledger sets, what it refuses, and commitments that cannot be guessed."""

import hashlib
import hmac
from datetime import UTC

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.entry import LEDGERS_OWN, CompletedEntry, Completer, Opening, holder_of, index_columns
from ledger.vault import commitments_of, unsealed
from shared.commitments import commit_to
from shared.errors import InvalidRequest
from shared.kinds import KINDS, kind_name, kind_number, kind_of
from support.clocks import NOON, ClockThatStandsStill
from support.ledgers import BROKER, COMPLETER, LAPD, decided, failed, rejected, search_id
from support.vaults import KEYRING, SEALER


def opened(completed: CompletedEntry) -> list[Opening]:
    """What was sealed, in its order."""
    commitments = commitments_of(completed.leaf)
    found = [unsealed(KEYRING, one, commitments[one.field]) for one in completed.openings]
    return [one for one in found if one is not None]


def test_ledger_sets_epoch_time_and_appender() -> None:
    entry = Entry.FromString(COMPLETER.complete(decided(1), "entry").leaf)
    assert entry.schema_epoch == 1
    assert entry.recorded_at.ToDatetime(UTC) == NOON
    assert entry.recorded_by == BROKER
    assert entry.search_decided.summary.origin_agency == LAPD


def test_what_was_sent_is_not_changed() -> None:
    pending, same = decided(1), decided(1)
    COMPLETER.complete(pending, "entry")
    assert pending == same


@pytest.mark.promise(5)
def test_commitment_is_that_of_its_contract() -> None:
    """HMAC-SHA256 keyed with the salt, over context, field and value, as entry.proto says."""
    salt = bytes(range(32))
    message = b"countersign/commitment/v1\0officer\0lapd-40123"
    expected = hmac.new(salt, message, hashlib.sha256).digest()
    assert commit_to("officer", salt, "lapd-40123") == expected
    assert expected.hex() == "99fcaaeaeab7f9f93759f122a28c28e3a731f40c29918906b6028008b77e94b3"


@pytest.mark.promise(5)
def test_same_value_never_has_the_same_commitment_twice() -> None:
    seen: set[bytes] = set()
    for number in range(100):
        pending = decided(number)
        for sensitive in pending.sensitive:
            sensitive.value = "the same"
        completed = COMPLETER.complete(pending, "entry")
        seen |= {one.commitment for one in Entry.FromString(completed.leaf).commitments}
        assert len({one.salt for one in opened(completed)}) == 3
    assert len(seen) == 300


@pytest.mark.promise(5)
def test_commitments_are_in_the_order_of_the_values() -> None:
    completed = COMPLETER.complete(decided(1), "entry")
    entry = Entry.FromString(completed.leaf)
    assert [one.field for one in entry.commitments] == ["officer", "case_number", "narrative"]
    for one, opening in zip(entry.commitments, opened(completed), strict=True):
        assert one.commitment == commit_to(opening.field, opening.salt, opening.value)


def test_salts_come_from_the_source_of_randomness() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return bytes(range(256)) * (count // 256)

    completer = Completer(BROKER, ClockThatStandsStill(), random, sealer=SEALER)
    completer.complete(decided(1), "entry")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("pending", "kind", "search", "agency", "permitted"),
    [
        (decided(1), "search_decided", search_id(1), LAPD, True),
        (decided(1, permitted=False), "search_decided", search_id(1), LAPD, False),
        (failed(1), "search_failed", search_id(1), LAPD, False),
        (rejected(), "request_rejected", None, None, False),
    ],
)
def test_entry_is_found_by_what_it_says(
    pending: PendingEntry, kind: str, search: str | None, agency: str | None, permitted: bool
) -> None:
    columns = COMPLETER.complete(pending, "entry").columns
    assert (columns.kind, columns.search_id, columns.origin_agency, columns.permitted) == (
        KINDS[kind],
        search,
        agency,
        permitted,
    )


def test_openings_are_of_the_agency_that_asked_and_a_reading_is_of_its_reader() -> None:
    police = "spiffe://countersign.test/agency/CA0194200"
    commission = "spiffe://countersign.test/oversight/police-commission"
    entry = Entry()
    entry.search_decided.summary.origin_agency = LAPD
    assert holder_of(entry) == LAPD
    entry.request_rejected.caller = police
    assert holder_of(entry) == LAPD
    entry.opening_read.origin_agency = LAPD
    entry.opening_read.caller = commission
    assert holder_of(entry) == "oversight/police-commission"
    entry.expunge_requested.caller = police
    assert holder_of(entry) == LAPD
    entry.heartbeat.SetInParent()
    assert holder_of(entry) == ""


def test_every_kind_of_entry_has_index_columns() -> None:
    for kind in KINDS:
        entry = Entry()
        getattr(entry, kind).SetInParent()
        columns = index_columns(entry)
        assert columns is not None
        assert columns.kind == KINDS[kind]
    assert index_columns(Entry()) is None


def test_the_bytes_of_a_declined_request_stay_what_they_are() -> None:
    entry = Entry(schema_epoch=1)
    event = entry.expunge_declined
    event.requested_index, event.withdrawn = 9, True
    event.caller, event.origin_agency, event.authority = "spiffe://x/oversight/y", LAPD, "s. 1"
    expected = (
        "08019a022d080912167370696666653a2f2f782f6f76657273696768742f79"
        "1a094341303139343230302204732e20312801"
    )
    assert entry.SerializeToString(deterministic=True).hex() == expected


def _from_the_future(number: int, epoch: int = 1) -> Entry:
    """An entry of a kind that this program does not know, with one byte in its event."""
    tag = number << 3 | 2
    varint = bytes([tag & 0x7F | 0x80, tag >> 7])
    known = Entry(schema_epoch=epoch, search_id=search_id(1)).SerializeToString()
    return Entry.FromString(known + varint + b"\x01x")


def test_unknown_kind_is_told_by_its_number() -> None:
    entry = _from_the_future(777)
    assert kind_number(entry) == 777
    assert kind_name(entry) == "unknown kind 777"
    columns = index_columns(entry)
    assert columns is not None
    assert (columns.kind, columns.search_id, columns.origin_agency) == (777, search_id(1), None)


def test_of_an_unknown_epoch_nothing_but_the_kind_is_taken() -> None:
    entry = _from_the_future(777, epoch=2)
    columns = index_columns(entry)
    assert columns is not None
    assert (columns.kind, columns.search_id) == (777, None)


def test_what_every_entry_has_is_no_kind() -> None:
    assert kind_number(_from_the_future(1000)) is None
    assert kind_name(Entry()) == "unknown kind"


def test_two_events_are_no_kind() -> None:
    entry = Entry.FromString(_from_the_future(777).SerializeToString() + b"\x8a\x01\x00")
    assert entry.HasField("request_rejected")
    assert kind_number(entry) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("search_decided", 11), ("11", 11), ("777", 777), ("9", None), ("1000", None), ("x", None)],
)
def test_kind_is_asked_for_by_name_or_number(text: str, number: int | None) -> None:
    assert kind_of(text) == number


def test_entry_of_an_unknown_kind_is_not_appended_by_an_older_ledger() -> None:
    pending = PendingEntry(entry=_from_the_future(777, epoch=0))
    with pytest.raises(InvalidRequest, match="field 777, which this ledger does not know"):
        COMPLETER.complete(pending, "entries[0]")


@pytest.mark.parametrize("kind", sorted(LEDGERS_OWN))
def test_what_the_ledger_did_only_the_ledger_records(kind: str) -> None:
    pending = PendingEntry()
    getattr(pending.entry, kind).SetInParent()
    with pytest.raises(InvalidRequest, match="for the ledger alone to record"):
        COMPLETER.complete(pending, "entries[0]")
    own = Completer("spiffe://countersign.test/service/ledger", ClockThatStandsStill(), own=True)
    assert own.complete(pending, "entry").columns.kind == KINDS[kind]


def test_same_entry_has_the_same_bytes() -> None:
    """Whatever the order in which fields were set; map fields would break this, and there are none."""

    def zeros(count: int) -> bytes:
        return bytes(count)

    leaves = {
        Completer(BROKER, ClockThatStandsStill(), zeros, sealer=SEALER)
        .complete(decided(1), "entry")
        .leaf
        for _ in range(3)
    }
    turned = PendingEntry.FromString(decided(1).SerializeToString())
    turned.entry.ClearField("search_id")
    turned.entry.search_id = search_id(1)
    leaves.add(
        Completer(BROKER, ClockThatStandsStill(), zeros, sealer=SEALER)
        .complete(turned, "entry")
        .leaf
    )
    assert len(leaves) == 1


def test_no_message_of_an_entry_has_a_map() -> None:
    """Their order is not fixed, and the bytes of an entry must be."""
    seen: set[str] = set()
    waiting = [Entry.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        assert not message.GetOptions().map_entry, message.full_name
        waiting += [field.message_type for field in message.fields if field.message_type]
    assert len(seen) > 20


def _with(change: str) -> PendingEntry:
    pending = decided(1)
    if change == "no event":
        pending.entry.ClearField("search_decided")
    elif change == "epoch":
        pending.entry.schema_epoch = 1
    elif change == "time":
        pending.entry.recorded_at.SetInParent()
    elif change == "appender":
        pending.entry.recorded_by = BROKER
    elif change == "commitment":
        pending.entry.commitments.add(field="officer", commitment=bytes(32))
    elif change == "key":
        pending.idempotency_key = "x" * 201
    elif change == "field twice":
        pending.sensitive.add(field="officer", value="another")
    elif change == "field name":
        pending.sensitive.add(field="Officer\0", value="x")
    elif change == "long value":
        pending.sensitive[0].value = "x" * 8001
    elif change == "many fields":
        for number in range(16):
            pending.sensitive.add(field="x" + "y" * number, value="x")
    return pending


@pytest.mark.parametrize(
    "change",
    [
        "no event",
        "epoch",
        "time",
        "appender",
        "commitment",
        "key",
        "field twice",
        "field name",
        "long value",
        "many fields",
    ],
)
def test_entry_that_breaks_a_rule_is_refused_by_its_place(change: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        COMPLETER.complete(_with(change), "entries[3]")
    assert refused.value.reason == "ENTRY_INVALID"
    assert refused.value.violations[0].field.startswith("entries[3]")


def test_largest_entry_is_taken_and_the_next_larger_refused() -> None:
    pending = rejected("")
    empty = len(COMPLETER.complete(pending, "entry").leaf)
    # Field number and lengths take 8 bytes more: 1 and 3 for the reason, and 2 more for the event.
    pending.entry.request_rejected.reason = "x" * (65_535 - empty - 6)
    assert len(COMPLETER.complete(pending, "entry").leaf) == 65_535
    pending.entry.request_rejected.reason += "x"
    with pytest.raises(InvalidRequest, match="65536 bytes; an entry has at most 65535") as refused:
        COMPLETER.complete(pending, "entries[0]")
    assert refused.value.reason == "ENTRY_TOO_LARGE"
