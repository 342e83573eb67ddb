"""Anything at all, sent to every method and every subject: only typed errors, no crash, no growth.

The methods are those that the doors themselves list, so that none can be forgotten; what is sent is drawn
from the contracts, damaged, or out of nothing. At the end the ledger verifies and a search goes through.
"""

import itertools
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import nats
import nats.errors
import psutil
import pytest
from google.protobuf.descriptor import Descriptor
from google.rpc import status_pb2
from nats.aio.client import Client as NatsClient

from countersign.broker.v1 import broker_pb2, peer_pb2
from countersign.connector.v1 import connector_pb2
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.nats_config import (
    DOCUMENT_SUBJECTS,
    LEDGER_SUBJECTS,
    POLICY_SUBJECTS,
    PUBLIC_DOCUMENT_SUBJECTS,
    RUNS_SUBJECTS,
)
from countersign.ledger.v1 import append_pb2, disclosure_pb2, ledger_pb2, query_pb2
from countersign.policy.v1 import policy_pb2
from shared.identity import SpiffeId
from shared.rejections import RATE
from shared.rpc import open_channel
from shared.settings import BusSettings
from shared.tls import bus_context
from support.agencies import AgencyAtWork, at_work
from support.brokers import own_case
from support.fuzzing import FORBIDDEN, TIMEOUT_S, attack, caller_of, methods_of
from support.installations import LAPD, InstallationUnderTest
from support.pictures import probe
from support.sources import ROOT
from tlog.checkpoint import Checkpoint
from tlog.merkle import leaf_hash, root_of_leaves

CONTRACTS: Final = (
    append_pb2.DESCRIPTOR,
    broker_pb2.DESCRIPTOR,
    disclosure_pb2.DESCRIPTOR,
    ledger_pb2.DESCRIPTOR,
    policy_pb2.DESCRIPTOR,
    query_pb2.DESCRIPTOR,
)
GROWTH_BYTES_MAX: Final = 128 * 1024 * 1024
PROCESSES: Final = ("broker", "policy", "ledger", "connector-lacris")

SUBJECTS: Final[dict[str, tuple[str, Descriptor]]] = {
    "policy.evaluate": ("broker", policy_pb2.EvaluateBatchRequest.DESCRIPTOR),
    "ledger.append": ("broker", append_pb2.AppendRequest.DESCRIPTOR),
    "ledger.get_receipts": ("broker", append_pb2.GetReceiptsRequest.DESCRIPTOR),
    "ledger.look_up_search": ("broker", append_pb2.LookUpSearchRequest.DESCRIPTOR),
    "ledger.list_open_searches": ("broker", append_pb2.ListOpenSearchesRequest.DESCRIPTOR),
    "ledger.list_searches": ("broker", append_pb2.ListSearchesRequest.DESCRIPTOR),
    "ledger.list_public_documents": ("broker", append_pb2.ListDocumentsRequest.DESCRIPTOR),
    "ledger.publish": ("policy", append_pb2.PublishDocumentRequest.DESCRIPTOR),
    "ledger.list_documents": ("policy", append_pb2.ListDocumentsRequest.DESCRIPTOR),
    "runs.lacris": ("lacris", append_pb2.ReportRunsRequest.DESCRIPTOR),
}
"""Who may ask on each, and what."""


@pytest.fixture(scope="module", name="attacked")
def _attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstallationUnderTest]:
    """One of its own: what the ledger takes from a fuzzed broker is nothing to build other tests on."""
    with InstallationUnderTest(tmp_path_factory.mktemp("attacked") / "data") as running:
        yield running


@pytest.fixture(name="lapd")
async def _lapd(attacked: InstallationUnderTest) -> AsyncIterator[AgencyAtWork]:
    async with at_work(attacked, LAPD) as agency:
        yield agency


@pytest.fixture(autouse=True)
async def _unharmed(attacked: InstallationUnderTest, lapd: AgencyAtWork) -> AsyncIterator[None]:
    """Every process is the one that it was, no larger; the ledger verifies; a search goes through."""
    before = {name: attacked.processes[name].pid for name in PROCESSES}
    memory = {name: resident(pid) for name, pid in before.items()}
    yield
    assert {name: attacked.processes[name].pid for name in PROCESSES} == before
    for name, pid in before.items():
        assert resident(pid) - memory[name] < GROWTH_BYTES_MAX, name
        assert '"call failed"' not in attacked.processes[name].log
        assert '"request failed"' not in attacked.processes[name].log
    prepared = lapd.sealed(own_case(), probe())
    await lapd.submit(prepared)
    assert (await lapd.ended(prepared))[1].candidates
    signed = await lapd.ledger.checkpoint()
    told = Checkpoint.parse(signed.checkpoint.partition("\n\n")[0] + "\n")
    leaves = [leaf async for leaf in lapd.ledger.leaves()]
    assert root_of_leaves([leaf_hash(leaf) for leaf in leaves[: told.size]]) == told.root


def resident(pid: int | None) -> int:
    """Bytes of a process and of its children, while it lives."""
    assert pid is not None
    process = psutil.Process(pid)
    assert process.status() != psutil.STATUS_ZOMBIE
    family = [process, *process.children(recursive=True)]
    return sum(int(one.memory_info().rss) for one in family)


@pytest.mark.parametrize("door", ["broker", "ledger", "policy"])
async def test_every_method_answers_anything_with_what_its_contract_says(
    attacked: InstallationUnderTest, lapd: AgencyAtWork, door: str
) -> None:
    entries_before = [leaf async for leaf in lapd.ledger.leaves()]
    port = getattr(attacked.ports, door)
    seen = Counter[str]()
    async with open_channel(f"127.0.0.1:{port}", lapd.settings.tls) as channel:
        methods = await methods_of(channel)
        assert methods
        for method in methods:
            assert method.containing_service is not None
            await attack(method.input_type, caller_of(channel, method, seen))
    assert seen["INVALID_ARGUMENT"], seen
    added = [leaf async for leaf in lapd.ledger.leaves()][len(entries_before) :]
    assert len(added) <= RATE.burst + 20, "what is turned away cannot fill the ledger"


async def connected_as(attacked: InstallationUnderTest, kind: Any, name: str) -> NatsClient:
    server = f"tls://127.0.0.1:{attacked.ports.nats}"
    tls = attacked.layout.tls(SpiffeId(TRUST_DOMAIN, kind, name))
    inbox = f"_INBOX_{name}" if kind == "service" else f"_INBOX_{kind}-{name}"
    return await nats.connect(
        server,
        tls=bus_context(BusSettings(servers=(server,), tls=tls)),
        tls_handshake_first=True,
        inbox_prefix=inbox,
    )


async def test_no_service_is_forgotten(attacked: InstallationUnderTest, lapd: AgencyAtWork) -> None:
    listed: set[str] = set()
    for port in (attacked.ports.broker, attacked.ports.ledger, attacked.ports.policy):
        async with open_channel(f"127.0.0.1:{port}", lapd.settings.tls) as channel:
            listed |= {method.containing_service.full_name for method in await methods_of(channel)}
    named = {one.full_name for file in CONTRACTS for one in file.services_by_name.values()}
    assert listed == named
    # What the door of a peer serves has a test of its own.
    of_peers = {one.full_name for one in peer_pb2.DESCRIPTOR.services_by_name.values()}
    assert listed | of_peers == set(every_service())


def every_service() -> Iterator[str]:
    """Of all contracts."""
    for file in sorted((ROOT / "proto").rglob("*.proto")):
        package = re.search(r"^package ([\w.]+);", file.read_text(), re.MULTILINE)
        assert package is not None
        for name in re.findall(r"^service (\w+) {", file.read_text(), re.MULTILINE):
            yield f"{package[1]}.{name}"


def test_no_subject_is_forgotten() -> None:
    served = {*POLICY_SUBJECTS, *LEDGER_SUBJECTS, *DOCUMENT_SUBJECTS, *PUBLIC_DOCUMENT_SUBJECTS}
    served |= {subject.replace("*", "lacris") for subject in RUNS_SUBJECTS}
    assert set(SUBJECTS) == served


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
async def test_every_subject_answers_anything_with_what_its_contract_says(
    attacked: InstallationUnderTest, subject: str
) -> None:
    """Even of the one service, or connector, that may ask there."""
    who, kind = SUBJECTS[subject]
    client = await connected_as(attacked, "connector" if who == "lacris" else "service", who)

    async def send(data: bytes) -> None:
        headers = {"Countersign-Deadline": str(int((time.time() + TIMEOUT_S) * 1000))}
        reply = await client.request(subject, data, timeout=TIMEOUT_S, headers=headers)
        code = (reply.headers or {}).get("Nats-Service-Error-Code")
        if code is not None:
            status = status_pb2.Status.FromString(reply.data)
            assert code == str(status.code)
            assert status.code not in {refused.value[0] for refused in FORBIDDEN}, status.message

    try:
        await attack(kind, send)
    finally:
        await client.close()


async def test_orders_and_answers_that_are_anything_are_set_aside(
    attacked: InstallationUnderTest, lapd: AgencyAtWork
) -> None:
    before = [leaf async for leaf in lapd.ledger.leaves()]
    broker = await connected_as(attacked, "service", "broker")
    connector = await connected_as(attacked, "connector", "lacris")
    numbers = itertools.count()

    async def order(data: bytes) -> None:
        # To NATS an empty message ends a stream of responses across accounts: whatever else the connector
        # had asked for would come once it is taken for lost, a minute later. No SignedOrder of ours is empty.
        await broker.publish(f"orders.lacris.{uuid.uuid4()}", data or b"\0")
        await broker.flush()

    async def answer(data: bytes) -> None:
        next(numbers)
        await connector.publish(f"answers.lacris.{uuid.uuid4()}", data)
        await connector.flush()

    try:
        await attack(connector_pb2.SignedOrder.DESCRIPTOR, order)
        await attack(connector_pb2.SignedAnswer.DESCRIPTOR, answer)
    finally:
        await broker.close()
        await connector.close()
    # Whatever is put on the bus after them comes after them: see the search of `_unharmed`.
    prepared = lapd.sealed(own_case(), probe())
    await lapd.submit(prepared)
    await lapd.ended(prepared)
    added = [leaf async for leaf in lapd.ledger.leaves()][len(before) :]
    assert len(added) <= 2 * RATE.burst + 10
