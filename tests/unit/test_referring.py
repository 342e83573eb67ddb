"""A search at a peer is followed and taken back whatever another peer does, and run for nobody who left."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from broker import referring
from broker.ledger import Ledger
from broker.peer_client import PeerClient
from broker.record import Record, answered_entry
from broker.referring import Referring
from broker.watch import KnownSearches
from countersign.broker.v1.broker_pb2 import Search
from countersign.installation.ports import free_ports
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import GalleryClass, SealedPayload
from shared.backoff import Backoff
from shared.errors import NotReady, Unavailable
from shared.referral import VALIDITY_S, NotProved, prove_referral
from shared.registry import TrustRoots
from support.brokers import BrokerOnTheTable, own_case
from support.buses import BusInMemory
from support.clocks import ClockThatStandsStill
from support.doors import Pki
from support.peers import (
    PeerThatHangs,
    PeerThatIsAway,
    PeerThatIsSlow,
    PeerThatKnowsNothing,
    PeerThatSays,
)
from support.referrals import EAST, ReferralWorkshop, unchanged
from support.searches import DECIDED_AT
from support.waiting import until

NORTH = "north.test"


class TwoPeers:
    """East hangs, and north does not."""

    def __init__(self) -> None:
        east = ReferralWorkshop()
        north = east.east_as_peer.model_copy(
            update={"trust_domain": NORTH, "parties": frozenset(), "systems": {}}
        )
        systems = {"north-faces": east.east_as_peer.systems["lacris"]}
        north = north.model_copy(update={"systems": systems})
        trust = TrustRoots(
            log_verifier_keys=east.trust.log_verifier_keys,
            broker_verify_keys=(bytes(32),),
            peers=(east.east_as_peer, north),
        )
        self.clock = ClockThatStandsStill(datetime.fromtimestamp(DECIDED_AT, UTC))
        self.east, self.north = PeerThatHangs(), PeerThatKnowsNothing()
        self.known = KnownSearches()
        self.referring = Referring(
            ledger=Ledger(BusInMemory()),  # type: ignore[arg-type]  # stands in for the real bus
            known=self.known,
            trust=trust,
            clients={EAST: self.east, NORTH: self.north},
            clock=self.clock,
        )
        self.at_east = recorded()

        def to_north(entry: Entry) -> None:
            entry.search_decided.referred_to = NORTH
            entry.search_decided.summary.system = "north-faces"
            entry.search_id = "0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11"
            entry.search_decided.deadline.seconds += 3600

        self.at_north = recorded(to_north)
        self.known.put(self.at_north)

    async def north_is_asked(self) -> None:
        """Follows until it has been."""

        async def asked() -> bool:
            return bool(self.north.asked)

        async with self.referring.following(asyncio.Event()):
            await until(asked)


def recorded(changed: Callable[[Entry], None] = unchanged) -> Record:
    """A search that was referred."""
    return Record.from_receipts(ReferralWorkshop().referred(changed).decision_receipt, None)


async def test_peer_that_hangs_keeps_no_other_from_being_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(referring, "AGAIN", Backoff(first_s=0, most_s=0))
    peers = TwoPeers()
    await peers.referring.withdraw(peers.at_east)
    await peers.north_is_asked()
    assert peers.east.withdrawn == [peers.at_east.search_id] * 2


async def test_withdrawal_is_not_told_past_the_deadline() -> None:
    peers = TwoPeers()
    await peers.referring.withdraw(peers.at_east)
    peers.clock.advance(minutes=5)
    await peers.north_is_asked()
    assert peers.east.withdrawn == [peers.at_east.search_id]


@pytest.mark.promise(8)
@pytest.mark.promise(9)
@pytest.mark.parametrize("whose", ["its own before a restart", "another broker's that is gone"])
async def test_withdrawals_that_the_peer_has_not_heard_of_are_told_from_the_ledger(
    whose: str,
) -> None:
    client = PeerThatIsAway()
    broker = at_peer(client)
    broker.bus.ledger.entries += [Entry(), Entry()]
    searches = [broker.prepared(own_case()).search_id for _ in range(3)]
    for search_id in searches:
        entry = Entry.FromString(recorded().decided.leaf)
        entry.search_id = search_id
        entry.search_decided.deadline.seconds = int(broker.clock.now().timestamp()) + 900
        record = await on_record(broker, entry)
        ended = await broker.ending.withdraw(record)
        await broker.referring.withdraw(ended)
    client.is_back = True
    if whose.startswith("another"):
        broker = broker.replica()
    else:
        broker.restart()

    async def all_told() -> bool:
        return sorted(client.withdrawn) == sorted(searches)

    async with broker.referring.following(asyncio.Event()):
        await until(all_told)


async def on_record(broker: BrokerOnTheTable, entry: Entry) -> Record:
    key = f"decided/{entry.search_id}"
    appended = await broker.ledger.append(PendingEntry(entry=entry, idempotency_key=key))
    return Record.from_receipts(appended.receipt, None)


def at_peer(client: PeerThatKnowsNothing) -> BrokerOnTheTable:
    """A broker whose only system is at the east."""
    broker = BrokerOnTheTable(peers=(ReferralWorkshop().east_as_peer,), clients={EAST: client})
    broker.bus.policy.outcome = DecisionOutcome.DECISION_OUTCOME_REFERRED
    return broker


async def test_search_that_is_withdrawn_while_it_is_referred_is_taken_back() -> None:
    client = PeerThatIsSlow()
    broker = at_peer(client)
    prepared = broker.prepared(own_case())
    submitting = asyncio.create_task(
        broker.searching.submit(broker.call(), broker.request(prepared))
    )
    await client.referred.wait()
    record = broker.known.get(prepared.search_id)
    assert record is not None
    await broker.referring.withdraw(await broker.ending.withdraw(record))
    assert client.withdrawn == []
    client.arrives.set()
    with pytest.raises(Unavailable):
        await submitting
    assert client.withdrawn == [prepared.search_id]


async def test_search_is_taken_back_from_a_peer_whose_word_does_not_hold() -> None:
    client = PeerThatIsSlow()
    client.loses_word = False
    client.arrives.set()
    broker = at_peer(client)
    prepared = broker.prepared(own_case())
    record = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert record.end is not None
    assert record.end.search_failed.check == "PEER_RECEIPT_INVALID"
    assert client.withdrawn == [prepared.search_id]


async def test_peer_that_has_not_applied_a_document_yet_is_asked_again() -> None:
    workshop = ReferralWorkshop()
    client = PeerThatSays(NotReady("DOCUMENT_NOT_APPLIED", "not yet"))
    referring = referring_to(workshop, client)
    with pytest.raises(Unavailable):
        await referring.refer(record_of(workshop), b"", SealedPayload())


async def test_late_word_of_a_search_hides_no_end() -> None:
    workshop = ReferralWorkshop()

    def as_brokers_write_it(entry: Entry) -> None:
        answer = workshop.search.answer()
        event = answered_entry(record_of(workshop), answer, b"").entry.search_answered
        event.answer_sha256 = entry.search_answered.answer_sha256
        event.decided_index = entry.search_answered.decided_index
        entry.search_answered.CopyFrom(event)

    told = workshop.answered(ended_changed=as_brokers_write_it)
    pending = Search(decision_receipt=told.peer.decision_receipt)
    ended = Search(decision_receipt=told.peer.decision_receipt, answer=told.answer)
    ended.end_receipt.CopyFrom(told.peer.end_receipt)
    referring = referring_to(workshop, PeerThatSays(ended, pending))
    record = Record.from_receipts(told.decision_receipt, None)
    for _ in range(2):
        await referring.refer(record, b"", SealedPayload())
    found = Search()
    await referring.give_out(Record.from_receipts(told.decision_receipt, told.end_receipt), found)
    assert found.peer.end_receipt == told.peer.end_receipt


def referring_to(workshop: ReferralWorkshop, client: PeerThatKnowsNothing) -> Referring:
    """To the east alone."""
    return Referring(
        ledger=Ledger(BusInMemory()),  # type: ignore[arg-type]  # stands in for the real bus
        known=KnownSearches(),
        trust=workshop.trust,
        clients={EAST: client},
        clock=ClockThatStandsStill(datetime.fromtimestamp(DECIDED_AT, UTC)),
    )


def record_of(workshop: ReferralWorkshop) -> Record:
    """A search of this workshop's that was referred."""
    return Record.from_receipts(workshop.referred().decision_receipt, None)


async def test_certificate_that_is_gone_for_a_moment_stops_nothing(pki: Pki) -> None:
    files = pki.issue("service", "broker")
    unreached = f"127.0.0.1:{next(free_ports())}"
    client, new = PeerClient(unreached, files), PeerClient(unreached, files)
    with pytest.raises(Unavailable):
        await client.get("0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11")
    files.certificate.unlink()
    for one, reason in ((client, "UNREACHABLE"), (new, "TLS_FILES")):
        with pytest.raises(Unavailable) as refused:
            await one.get("0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11")
        assert refused.value.reason == reason
        await one.close()


# Where the system is


def _another_class(entry: Entry) -> None:
    entry.search_decided.summary.gallery_class = GalleryClass.GALLERY_CLASS_BOOKING_PHOTOS


def _another_owner(entry: Entry) -> None:
    entry.search_decided.summary.gallery_owner = "CA0190000"


def _another_operator(entry: Entry) -> None:
    entry.search_decided.summary.operator_agency = "CA0190000"


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (unchanged, None),
        (_another_class, "PEER_SUMMARY_MISMATCH"),
        (_another_owner, "PEER_SUMMARY_MISMATCH"),
        (_another_operator, "PEER_SUMMARY_MISMATCH"),
    ],
)
async def test_permit_of_another_gallery_than_ours_counts_for_nothing(
    lie: Callable[[Entry], None], check: str | None
) -> None:
    def changed(entry: Entry) -> None:
        # As our policy has it here, which knows of neither.
        entry.search_decided.summary.operator_agency = ""
        lie(entry)

    broker = await taken(ReferralWorkshop(), DECIDED_AT, changed, check)
    assert broker.bus.ledger.kinds() == ([] if check else ["search_decided"])


async def test_deadline_is_held_against_our_own_clock() -> None:
    def last(entry: Entry) -> None:
        entry.search_decided.summary.operator_agency = ""

    await taken(ReferralWorkshop(), DECIDED_AT + 60 - VALIDITY_S, last, None)
    await taken(ReferralWorkshop(), DECIDED_AT + 59 - VALIDITY_S, last, "PEER_DEADLINE")


async def taken(
    workshop: ReferralWorkshop,
    now_s: float,
    changed: Callable[[Entry], None],
    check: str | None,
) -> BrokerOnTheTable:
    """The east's broker, which has been referred the search and takes it unless there is a check."""
    broker = BrokerOnTheTable(clock=ClockThatStandsStill(datetime.fromtimestamp(now_s, UTC)))
    request = workshop.request(workshop.referred(changed))
    proved = prove_referral(workshop.west_as_peer, EAST, request)
    if check is None:
        await broker.searching.take_referral(broker.call(), proved, request)
    else:
        with pytest.raises(NotProved) as refused:
            await broker.searching.take_referral(broker.call(), proved, request)
        assert refused.value.check == check
    return broker
