"""A search between two installations with a ledger each: asked here, run there, on record in both."""

import asyncio
import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.peer_client import PeerClient
from countersign.broker.v1 import broker_pb2 as pb
from countersign.cli.main import exit_code
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.installation.pki import Authority
from countersign.installation.ports import address
from countersign.type.v1.decision_pb2 import DecisionOutcome, Seat, VerdictOutcome
from shared import telemetry
from shared.clock import SystemClock
from shared.errors import NotAllowed, NotFound, ServiceError, Unavailable
from shared.identity import SpiffeId
from shared.referral import keys_of
from shared.settings import TlsFiles
from shared.signing import SigningKey
from support.agencies import AgencyAtWork, at_work
from support.brokers import own_case
from support.federations import EAST, OPERATORS_DIRECTIVE, SYSTEM, WEST, Side, federation
from support.installations import BURBANK, LAPD, LASD
from support.signals import Signals
from support.waiting import until
from tlog.note import Verifier


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    """West asks, east has the system."""
    async with federation(tmp_path) as both:
        yield both


@contextlib.asynccontextmanager
async def asking(side: Side) -> AsyncIterator[AgencyAtWork]:
    """LAPD's system at the west."""
    async with at_work(side.installation, LAPD, side.client(LAPD)) as lapd:
        yield lapd


@contextlib.asynccontextmanager
async def reading(side: Side) -> AsyncIterator[AgencyAtWork]:
    """Somebody who reads the ledger there."""
    async with at_work(side.installation, LASD, side.client(LASD)) as lasd:
        yield lasd


def sealed(lapd: AgencyAtWork, **changes: object) -> PreparedSearch:
    """A search of the system at the east."""
    keys = keys_of(lapd.client.trust, SYSTEM)
    assert keys is not None
    return seal_search(own_case(**changes), b"a picture", keys.sealing_public_key)


@pytest.mark.promise(1)
@pytest.mark.promise(4)
async def test_a_search_goes_through_both_and_both_have_it_on_record(
    sides: tuple[Side, Side],
    signals: Signals,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    west, east = sides
    async with asking(west) as lapd, reading(east) as lasd:
        prepared = sealed(lapd)
        with telemetry.span("the client's own work"):
            await lapd.submit(prepared)
        found, opened = await lapd.ended(prepared)
        assert opened.candidates is not None
        here, there = [await one.entries(prepared.search_id) for one in (lapd, lasd)]
        receipts = found.peer.decision_receipt, found.peer.end_receipt
    kinds = ["search_decided", "search_answered"]
    assert [str(one.WhichOneof("event")) for one in here] == kinds
    assert [str(one.WhichOneof("event")) for one in there] == kinds
    # Each names the other's entry, by log, index and digest.
    assert here[0].search_decided.referred_to == EAST
    by = there[0].search_decided.referred_by
    assert (by.peer, by.log_origin) == (WEST, f"{WEST}/ledger")
    assert by.leaf_sha256 == hashlib.sha256(found.decision_receipt.leaf).digest()
    ended = here[1].search_answered
    assert [ended.peer_decided.leaf_sha256, ended.peer_ended.leaf_sha256] == [
        hashlib.sha256(one.leaf).digest() for one in receipts
    ]
    assert ended.answer_sha256 == there[1].search_answered.answer_sha256
    # What the west left to the east stands in its decision, and is no permit.
    said = {one.seat: one for one in here[0].search_decided.decision.verdicts}
    assert here[0].search_decided.decision.outcome == DecisionOutcome.DECISION_OUTCOME_REFERRED
    assert said[Seat.SEAT_OPERATOR].outcome == VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL
    assert said[Seat.SEAT_OPERATOR].asked_at == EAST
    said = {one.seat: one for one in there[0].search_decided.decision.verdicts}
    assert said[Seat.SEAT_ORIGIN].asked_at == WEST
    assert not said[Seat.SEAT_OPERATOR].asked_at

    # One trace leads from the client to the connector of the other side.
    (ordered,) = [span for span in signals.spans if span.name == "connector.run"]
    lineage = signals.lineage(ordered)
    assert lineage[0] == "the client's own work"
    assert "countersign.broker.v1.PeerService/ReferSearch" in lineage
    # Whoever has both ledgers sees that they agree, and the search in one alone.
    assert await reconciled(west, east, tmp_path, capsys) == (0, [])
    async with asking(west) as lapd:
        await east.stop("broker")
        lost = own_case()
        lost.expires_after.FromSeconds(1)
        keys = keys_of(lapd.client.trust, SYSTEM)
        assert keys is not None
        alone = seal_search(lost, b"a picture", keys.sealing_public_key)
        # Tried again and again until it expires.
        with contextlib.suppress(Unavailable):
            await lapd.submit(alone)
        await lapd.client.wait(alone.search_id)
    assert await reconciled(west, east, tmp_path, capsys) == (1, [(alone.search_id, "NOT_TAKEN")])


async def reconciled(
    west: Side, east: Side, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[tuple[str, str]]]:
    """What the command says of exports of both ledgers."""
    for side, ori in ((west, LAPD), (east, LASD)):
        client = str(side.installation.client(ori))
        assert await commanded("export", str(folder / side.domain), "--config", client) == 0
    client = str(west.installation.client(LAPD))
    exports = [str(folder / domain) for domain in (WEST, EAST)]
    capsys.readouterr()
    code = await commanded("reconcile", *exports, "--json", "--config", client)
    told = json.loads(capsys.readouterr().out)
    return code, [(one["search_id"], one["what"]) for one in told["discrepancies"]]


async def commanded(*words: str) -> int:
    """The exit code of a sub-command of `countersign ledger`."""
    return await asyncio.to_thread(exit_code, ["ledger", *words])


@pytest.mark.promise(8)
async def test_a_search_survives_a_peer_that_is_down_before_and_after_it_decided(
    sides: tuple[Side, Side],
) -> None:
    west, east = sides
    async with asking(west) as lapd:
        prepared = sealed(lapd)
        await east.stop("broker")
        with pytest.raises(Unavailable) as refused:
            await lapd.submit(prepared)
        assert refused.value.reason == "PEER_UNAVAILABLE"
        assert await lapd.kinds(prepared.search_id) == ["search_decided"]
        await east.stop("connector")
        await east.start("broker")
        # The same id is the same search: it is referred now, and waits for the connector.
        search = await lapd.submit_until_taken(prepared)
        assert search.state == pb.SEARCH_STATE_PENDING
        # Both brokers forget all that they had at hand, and the search is answered all the same.
        await east.stop("broker")
        await west.stop("broker")
        await west.start("broker")
        await east.start("broker")
        await east.start("connector")
        found, opened = await lapd.ended(prepared)
        assert opened.candidates is not None
        # Nobody has the answer at hand any more but the peer, and it is given out with both receipts.
        await west.stop("broker")
        await west.start("broker")
        again, _ = await lapd.ended(prepared)
        assert again.peer.decision_receipt.leaf == found.peer.decision_receipt.leaf
        assert await lapd.kinds(prepared.search_id) == ["search_decided", "search_answered"]
    async with reading(east) as lasd:
        assert await lasd.kinds(prepared.search_id) == ["search_decided", "search_answered"]


@pytest.mark.promise(1)
async def test_what_ends_here_without_an_answer_ends_there_as_well(
    sides: tuple[Side, Side],
) -> None:
    west, east = sides
    await east.stop("connector")
    async with asking(west) as lapd, reading(east) as lasd:
        withdrawn = sealed(lapd)
        await lapd.submit(withdrawn)
        await lapd.client.cancel(withdrawn.search_id)
        facts = own_case()
        facts.expires_after.FromSeconds(2)
        keys = keys_of(lapd.client.trust, SYSTEM)
        assert keys is not None
        expired = seal_search(facts, b"a picture", keys.sealing_public_key)
        await lapd.submit(expired)
        for prepared, end in ((withdrawn, "search_withdrawn"), (expired, "search_expired")):
            await lapd.client.wait(prepared.search_id)
            assert await lapd.kinds(prepared.search_id) == ["search_decided", end]

            async def ended_there(
                search_id: str = prepared.search_id, wanted: str = end
            ) -> list[str] | None:
                kinds = await lasd.kinds(search_id)
                return kinds if kinds == ["search_decided", wanted] else None

            await until(ended_there)


@pytest.mark.promise(3)
async def test_a_party_of_either_side_can_refuse_it(sides: tuple[Side, Side]) -> None:
    west, east = sides
    async with asking(west) as lapd, reading(east) as lasd:
        # LAPD's own directive: nothing leaves the west.
        here = sealed(lapd, beneficiary_agency=BURBANK)
        found = await lapd.submit(here)
        assert found.state == pb.SEARCH_STATE_REFUSED
        assert await lasd.kinds(here.search_id) == []
        # LASD's, which has none in force any more, and of which the west knows nothing.
        await east.stop("policy")
        shutil.rmtree(east.layout.directives / OPERATORS_DIRECTIVE)
        await east.start("policy")
        there = sealed(lapd)
        await lapd.submit(there)
        found = await lapd.client.wait(there.search_id)
        assert found.failure_reason == FailureReason.FAILURE_REASON_PEER_REFUSED
        assert await lapd.kinds(there.search_id) == ["search_decided", "search_failed"]
        (entry,) = await lasd.entries(there.search_id)
        refusal = entry.search_decided.decision
        assert refusal.outcome == DecisionOutcome.DECISION_OUTCOME_REFUSED
        # The officer is shown by whom.
        assert found.peer.decision_receipt.leaf == entry.SerializeToString()


async def test_only_the_peers_broker_may_call_and_only_on_its_own_port(
    sides: tuple[Side, Side],
) -> None:
    west, east = sides
    identity = west.installation.prepared.identity
    agency = west.layout.tls(identity("agency", LAPD))
    bundle = east.layout.authority
    forged = Authority.load(west.layout.authority, west.layout.authority_key).issue(
        SpiffeId(EAST, "service", "broker"), SystemClock().now(), listens=True
    )
    (west.layout.root / "forged.pem").write_bytes(forged.certificate_pem)
    (west.layout.root / "forged-key.pem").write_bytes(forged.key_pem)
    callers = {
        # An agency's system of the peer is known there, and may refer nothing.
        "agency": (agency.model_copy(update={"authority": bundle}), east.port, NotAllowed),
        # The west's authority cannot name a broker of the east, on no port.
        "other domain": (
            TlsFiles(
                certificate=west.layout.root / "forged.pem",
                key=west.layout.root / "forged-key.pem",
                authority=bundle,
            ),
            east.port,
            NotAllowed,
        ),
        # Nor does any certificate of the west open the door of the east's own agencies.
        "other port": (west.tls, east.installation.ports.broker, Unavailable),
        # And the east's own are not the west's.
        "own": (
            east.layout.tls(east.installation.prepared.identity("service", "broker")),
            east.port,
            Unavailable,
        ),
    }
    for name, (tls, port, error) in callers.items():
        client = PeerClient(address(port), tls)
        with pytest.raises(ServiceError) as refused:
            await client.get("0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11")
        await client.close()
        assert isinstance(refused.value, error), name
    client = PeerClient(address(east.port), west.tls)
    with pytest.raises(NotFound):
        await client.get("0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11")
    await client.close()


async def test_a_peer_that_is_revoked_is_referred_nothing_and_may_not_call(
    sides: tuple[Side, Side],
) -> None:
    west, east = sides
    async with asking(west) as lapd:
        await east.stop("broker")
        east.trusts(peers=[])
        await east.start("broker")
        prepared = sealed(lapd)
        with pytest.raises(Unavailable):
            await lapd.submit(prepared)
        await west.stop("broker")
        west.trusts(peers=[])
        await west.start("broker")
        other = sealed(lapd)
        # Nobody here can tell what the far operator says: a refusal.
        assert (await lapd.submit(other)).state == pb.SEARCH_STATE_REFUSED


@pytest.mark.promise(4)
async def test_a_peer_that_shows_another_log_is_not_believed(sides: tuple[Side, Side]) -> None:
    west, _ = sides
    await west.stop("broker")
    peer = west.roots()["peers"][0]
    other = Verifier(f"{EAST}/ledger", SigningKey.generate().verify_key.raw).vkey
    west.trusts(peers=[{**peer, "log_verifier_keys": [other]}])
    await west.start("broker")
    async with asking(west) as lapd:
        prepared = sealed(lapd)
        await lapd.submit(prepared)
        found = await lapd.client.wait(prepared.search_id)
        assert found.failure_reason == FailureReason.FAILURE_REASON_PEER_REJECTED
        assert not found.HasField("answer")
        end = (await lapd.entries(prepared.search_id))[-1].search_failed
        assert end.check == "PEER_RECEIPT_INVALID"


async def test_what_a_third_would_have_is_not_referred_on(sides: tuple[Side, Side]) -> None:
    west, east = sides
    # The east leaves the system to a third, and the west does not know.
    await east.stop("broker")
    roots = east.roots()
    third = {
        "trust_domain": "north.test",
        "log_verifier_keys": roots["log_verifier_keys"],
        "systems": {SYSTEM: roots["systems"].pop(SYSTEM)},
    }
    east.trusts(systems=roots["systems"], peers=[*roots["peers"], third])
    await east.start("broker")
    async with asking(west) as lapd, reading(east) as lasd:
        prepared = sealed(lapd)
        await lapd.submit(prepared)
        found = await lapd.client.wait(prepared.search_id)
        assert found.failure_reason == FailureReason.FAILURE_REASON_PEER_REJECTED
        end = (await lapd.entries(prepared.search_id))[-1].search_failed
        assert end.check == "SYSTEM_NOT_HERE"
        assert await lasd.kinds(prepared.search_id) == []
        turned_away = (await lasd.newest("request_rejected")).request_rejected
        assert turned_away.reason == "SYSTEM_NOT_HERE"
        assert turned_away.caller == f"spiffe://{WEST}/service/broker"


async def test_a_broker_that_stops_lets_no_peer_wait_at_its_door(sides: tuple[Side, Side]) -> None:
    west, east = sides
    await east.stop("connector")
    async with asking(west) as lapd:
        prepared = sealed(lapd)
        await lapd.submit(prepared)
        client = PeerClient(address(east.port), west.tls)
        await client.get(prepared.search_id)
        held_back = asyncio.create_task(client.get(prepared.search_id, wait_s=60))
        # On the same connection: once it is answered, the one before it has arrived.
        await asyncio.create_task(client.get(prepared.search_id))
        await east.stop("broker")
        # Told how the search stands, not cut off when the grace is over.
        assert (await held_back).state == pb.SEARCH_STATE_PENDING
        await client.close()
