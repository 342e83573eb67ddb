"""The ledger as others meet it: over the bus as the broker, over gRPC as anyone with a certificate."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from countersign.ledger.v1 import append_pb2, ledger_pb2
from countersign.ledger.v1.append_pb2_grpc import LedgerAppendServiceStub
from countersign.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from ledger.__main__ import RunningLedger, running
from ledger.config import LedgerSettings
from ledger.replica import Replica
from shared.bus import Bus
from shared.errors import InvalidRequest, NotAllowed, NotFound, ServiceError
from shared.identity import Kind
from shared.rpc import call, open_channel, service_error
from support.databases import DatabaseUnderTest
from support.ledgers import (
    LAPD,
    SIGNER,
    assert_whole,
    decided,
    failed,
    rejected,
    search_id,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from tlog.checkpoint import open_checkpoint
from tlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from tlog.note import Verifier
from tlog.proof import verify_receipt

TIMEOUT_S = 20


@dataclass(frozen=True)
class Met:
    """A running ledger, and the two ways to speak with it."""

    broker: Bus
    stub: LedgerServiceStub
    ledger: RunningLedger | Replica

    async def append(self, *pending: append_pb2.PendingEntry) -> append_pb2.AppendResponse:
        return await self.broker.request(
            "ledger.append",
            append_pb2.AppendRequest(entries=pending),
            append_pb2.AppendResponse,
            TIMEOUT_S,
        )


@pytest.fixture(name="met")
async def _met(
    tmp_path: Path, nats_server: NatsUnderTest, no_log: DatabaseUnderTest
) -> AsyncIterator[Met]:
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server, no_log))
    async with running(settings) as ledger:
        broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        tls = nats_server.certificates.tls("oversight", "commission")
        async with open_channel(f"127.0.0.1:{ledger.server.port}", tls) as channel:
            yield Met(broker, LedgerServiceStub(channel), ledger)
        await broker.close()
    assert_whole(no_log)


@pytest.fixture(name="door")
async def _door(met: Met, nats_server: NatsUnderTest) -> AsyncIterator[LedgerAppendServiceStub]:
    """The broker's door to appends over gRPC."""
    tls = nats_server.certificates.tls("service", "broker")
    async with open_channel(f"127.0.0.1:{met.ledger.server.port}", tls) as channel:
        yield LedgerAppendServiceStub(channel)


async def refusal(asked: Awaitable[object]) -> ServiceError | None:
    """With which error a ledger refuses; None when it does not."""
    try:
        await asked
    except ServiceError as error:
        return error
    return None


async def ask(method: object, request: object) -> object:
    return await call(method, request, name="test", timeout_s=TIMEOUT_S)  # type: ignore[arg-type]


async def test_appended_entries_come_back_with_receipts(met: Met) -> None:
    response = await met.append(decided(1), rejected())
    assert [one.receipt.index for one in response.appended] == [0, 1]
    for one in response.appended:
        index, checkpoint = verify_receipt(
            one.receipt.leaf, one.receipt.tlog_proof, SIGNER.verifier
        )
        assert (index, checkpoint.size) == (one.receipt.index, 2)
    again = await met.append(decided(1))
    assert again.appended[0].existing
    assert again.appended[0].receipt.leaf == response.appended[0].receipt.leaf


async def test_append_of_too_few_or_many_is_refused(met: Met) -> None:
    for count in (0, 257):
        error = await refusal(met.append(*(rejected() for _ in range(count))))
        assert isinstance(error, InvalidRequest), count


async def test_one_bad_entry_refuses_the_whole_request(met: Met) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await met.append(decided(1), append_pb2.PendingEntry())
    assert refused.value.violations[0].field == "entries[1].entry.event"
    checkpoint = await met.stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest())
    assert open_checkpoint(checkpoint.checkpoint, SIGNER.verifier).size == 0


async def look_up(met: Met, search: str) -> append_pb2.LookUpSearchResponse:
    return await met.broker.request(
        "ledger.look_up_search",
        append_pb2.LookUpSearchRequest(search_id=search),
        append_pb2.LookUpSearchResponse,
        TIMEOUT_S,
    )


async def test_search_is_looked_up(met: Met) -> None:
    await met.append(decided(1), decided(2), failed(1))
    ended = await look_up(met, search_id(1).upper())
    assert (ended.decided.index, ended.ended.index) == (0, 2)
    verify_receipt(ended.ended.leaf, ended.ended.tlog_proof, SIGNER.verifier)
    still_open = await look_up(met, search_id(2))
    assert still_open.decided.index == 1
    assert not still_open.HasField("ended")
    unknown = await look_up(met, search_id(3))
    assert not unknown.HasField("decided")
    with pytest.raises(InvalidRequest):
        await look_up(met, "")


async def test_open_searches_are_listed_page_by_page(met: Met) -> None:
    for start in range(0, 1020, 255):
        await met.append(*(decided(n) for n in range(start, start + 255)))
    await met.append(failed(7))
    found: list[int] = []
    start, pages = 0, 0
    while True:
        page = await met.broker.request(
            "ledger.list_open_searches",
            append_pb2.ListOpenSearchesRequest(start_index=start),
            append_pb2.ListOpenSearchesResponse,
            TIMEOUT_S,
        )
        pages += 1
        found += [one.index for one in page.decided]
        if page.next_index == 0:
            break
        start = page.next_index
    assert found == [n for n in range(1020) if n != 7]
    assert pages > 1


async def test_searches_of_an_agency_are_listed_newest_first(met: Met) -> None:
    await met.append(decided(1), decided(2, agency="CA0190000"), decided(3), failed(1))

    async def listed(before: int, size: int) -> list[int]:
        page = await met.broker.request(
            "ledger.list_searches",
            append_pb2.ListSearchesRequest(origin_agency=LAPD, page_size=size, before_index=before),
            append_pb2.ListSearchesResponse,
            TIMEOUT_S,
        )
        return [one.decided.index for one in page.searches]

    assert await listed(0, 10) == [2, 0]
    assert await listed(0, 1) == [2]
    assert await listed(2, 10) == [0]
    assert await listed(0, 0) == [2, 0]


async def test_entry_is_read_with_its_exact_bytes(met: Met) -> None:
    appended = (await met.append(decided(1))).appended[0].receipt
    response = await met.stub.GetEntry(ledger_pb2.GetEntryRequest(index=0))
    assert response.record.leaf == appended.leaf
    assert response.record.entry.search_id == search_id(1)


async def test_entry_that_does_not_exist_is_not_found(met: Met) -> None:
    await met.append(decided(1))
    for index in (1, 2**63 - 1, 2**64 - 1):
        error = await refusal(ask(met.stub.GetEntry, ledger_pb2.GetEntryRequest(index=index)))
        assert isinstance(error, NotFound | InvalidRequest), index


async def entries(met: Met, **wanted: object) -> list[int]:
    """Indexes of a whole listing, in pages of two."""
    found: list[int] = []
    token = ""
    while True:
        request = ledger_pb2.ListEntriesRequest(page_size=2, page_token=token, **wanted)  # type: ignore[arg-type]
        page = await met.stub.ListEntries(request)
        found += [record.index for record in page.records]
        token = page.next_page_token
        if not token:
            return found
        assert len(page.records) == 2


async def test_entries_are_listed_and_filtered(met: Met) -> None:
    await met.append(
        decided(1), decided(2, agency="CA0190000"), rejected(), decided(3), failed(1), rejected()
    )
    assert await entries(met) == [0, 1, 2, 3, 4, 5]
    assert await entries(met, start_index=3) == [3, 4, 5]
    assert await entries(met, kind="request_rejected") == [2, 5]
    assert await entries(met, search_id=search_id(1)) == [0, 4]
    assert await entries(met, search_id=search_id(1).upper()) == [0, 4]
    assert await entries(met, origin_agency=LAPD) == [0, 3, 4]
    assert await entries(met, origin_agency=LAPD, kind="search_decided") == [0, 3]
    assert await entries(met, origin_agency="CA0000000") == []


async def test_token_goes_with_its_question(met: Met) -> None:
    await met.append(*(decided(n) for n in range(5)))
    page = await met.stub.ListEntries(ledger_pb2.ListEntriesRequest(page_size=2))
    other_size = ledger_pb2.ListEntriesRequest(page_size=3, page_token=page.next_page_token)
    assert [one.index for one in (await met.stub.ListEntries(other_size)).records] == [2, 3, 4]
    tokens = {
        "other question": ledger_pb2.ListEntriesRequest(
            kind="search_decided", page_token=page.next_page_token
        ),
        "not ours": ledger_pb2.ListEntriesRequest(page_token="AAAA"),
        "not base64": ledger_pb2.ListEntriesRequest(page_token="?"),
        "not ASCII": ledger_pb2.ListEntriesRequest(page_token="\N{EM DASH}"),
        "changed": ledger_pb2.ListEntriesRequest(page_token="B" + page.next_page_token[1:]),
    }
    for request in tokens.values():
        with pytest.raises(InvalidRequest) as refused:
            await ask(met.stub.ListEntries, request)
        assert refused.value.violations[0].field == "page_token"


async def test_listing_that_breaks_a_rule_is_refused(met: Met) -> None:
    for request in (
        ledger_pb2.ListEntriesRequest(kind="no_such_kind"),
        ledger_pb2.ListEntriesRequest(kind="NO"),
        ledger_pb2.ListEntriesRequest(page_size=1001),
        ledger_pb2.ListEntriesRequest(search_id="1"),
        ledger_pb2.ListEntriesRequest(origin_agency="lapd"),
        ledger_pb2.ListEntriesRequest(start_index=2**64 - 1),
    ):
        error = await refusal(ask(met.stub.ListEntries, request))
        assert isinstance(error, InvalidRequest), request
        assert error.violations, request


async def test_watcher_sees_what_is_on_record_and_each_new_entry(met: Met) -> None:
    await met.append(*(decided(n) for n in range(150)))
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def watch() -> None:
        async for response in met.stub.WatchEntries(ledger_pb2.WatchEntriesRequest(start_index=3)):
            await seen.put(response.record.index)

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(TIMEOUT_S):
        for index in range(3, 150):
            assert await seen.get() == index
        await met.append(decided(1000))
        assert await seen.get() == 150
        await met.append(decided(1001), decided(1002))
        assert [await seen.get(), await seen.get()] == [151, 152]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_proofs_over_grpc_verify(met: Met) -> None:
    checkpoints = []
    for n in range(5):
        await met.append(decided(n))
        response = await met.stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest())
        assert Verifier.parse(response.verifier_key) == SIGNER.verifier
        checkpoints.append(open_checkpoint(response.checkpoint, SIGNER.verifier))
    leaf = (await met.stub.GetEntry(ledger_pb2.GetEntryRequest(index=1))).record.leaf
    for checkpoint in checkpoints[1:]:
        proof = await met.stub.GetInclusionProof(
            ledger_pb2.GetInclusionProofRequest(index=1, tree_size=checkpoint.size)
        )
        verify_inclusion(leaf_hash(leaf), 1, checkpoint.size, proof.hashes, checkpoint.root)
        assert bool(proof.tlog_proof) == (checkpoint.size == 5)
    newest = await met.stub.GetInclusionProof(ledger_pb2.GetInclusionProofRequest(index=1))
    verify_receipt(leaf, newest.tlog_proof, SIGNER.verifier)
    for old, new in itertools.combinations(checkpoints, 2):
        consistency = await met.stub.GetConsistencyProof(
            ledger_pb2.GetConsistencyProofRequest(
                first_tree_size=old.size, second_tree_size=new.size
            )
        )
        verify_consistency(old.size, new.size, old.root, new.root, consistency.hashes)


async def test_impossible_proofs_are_refused(met: Met) -> None:
    await met.append(decided(1), decided(2))
    inclusion, consistency = met.stub.GetInclusionProof, met.stub.GetConsistencyProof
    for method, request, error in (
        (inclusion, ledger_pb2.GetInclusionProofRequest(index=2), NotFound),
        (inclusion, ledger_pb2.GetInclusionProofRequest(index=1, tree_size=1), NotFound),
        (inclusion, ledger_pb2.GetInclusionProofRequest(index=0, tree_size=3), NotFound),
        (consistency, ledger_pb2.GetConsistencyProofRequest(), InvalidRequest),
        (consistency, ledger_pb2.GetConsistencyProofRequest(first_tree_size=3), InvalidRequest),
        (
            consistency,
            ledger_pb2.GetConsistencyProofRequest(first_tree_size=1, second_tree_size=3),
            NotFound,
        ),
    ):
        with pytest.raises(error):
            await ask(method, request)


async def test_stranger_without_our_certificate_is_not_served(
    met: Met, tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    address = f"127.0.0.1:{met.ledger.server.port}"
    authority = (nats_server.certificates.tls("agency", LAPD)).authority.read_bytes()
    credentials = grpc.ssl_channel_credentials(authority)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await LedgerServiceStub(channel).GetCheckpoint(
                ledger_pb2.GetCheckpointRequest(), timeout=TIMEOUT_S
            )
    assert service_error(refused.value).reason == "UNREACHABLE"


async def test_the_broker_appends_over_grpc_as_over_the_bus(
    met: Met, door: LedgerAppendServiceStub
) -> None:
    request = append_pb2.AppendRequest(entries=[decided(1), rejected()])
    over_grpc = await call(door.Append, request, name="test", timeout_s=TIMEOUT_S)
    assert [one.receipt.index for one in over_grpc.appended] == [0, 1]
    for one in over_grpc.appended:
        assert verify_receipt(one.receipt.leaf, one.receipt.tlog_proof, SIGNER.verifier)[0] == (
            one.receipt.index
        )
    over_bus = await met.append(decided(1))
    assert over_bus.appended[0].existing
    assert over_bus.appended[0].receipt.leaf == over_grpc.appended[0].receipt.leaf


async def test_nobody_else_appends_over_grpc(met: Met, nats_server: NatsUnderTest) -> None:
    others: tuple[tuple[Kind, str], ...] = (
        ("oversight", "commission"),
        ("agency", LAPD),
        ("service", "policy"),
    )
    for other in others:
        tls = nats_server.certificates.tls(*other)
        async with open_channel(f"127.0.0.1:{met.ledger.server.port}", tls) as channel:
            request = append_pb2.AppendRequest(entries=[decided(1)])
            error = await refusal(ask(LedgerAppendServiceStub(channel).Append, request))
            assert isinstance(error, NotAllowed), other


async def test_an_append_over_grpc_has_one_to_256_entries(
    met: Met, door: LedgerAppendServiceStub
) -> None:
    for count in (0, 257):
        request = append_pb2.AppendRequest(entries=[rejected()] * count)
        error = await refusal(ask(door.Append, request))
        assert isinstance(error, InvalidRequest), count
        assert [one.field for one in error.violations] == ["entries"], count
