"""One search through all services: one trace, its metrics, and nothing sensitive in either.

The services run within the test, over real gRPC and a real NATS server, so that their signals can
be kept in memory.
"""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

import broker.__main__ as broker_main
import connector.__main__ as connector_main
import ledger.__main__ as ledger_main
import policy.__main__ as policy_main
from broker.config import BrokerSettings
from connector.config import AnswersAtOnceAdapter, ConnectorSettings
from countersign.broker.v1.broker_pb2 import SEARCH_STATE_ANSWERED, Search
from countersign.client import Client, ClientSettings
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from shared import telemetry
from shared.signing import SigningKey
from support.brokers import OFFICER, own_case
from support.installations import LAPD, InstallationUnderTest
from support.signals import Signals
from support.waiting import until

BROKER: Final = "countersign.broker.v1.BrokerService"
ORDERS, ANSWERS = "orders.{system}.{search}", "answers.{system}.{search}"
CLIENTS_WORK: Final = "the client's own work"
CASE, NARRATIVE = "26-SECRET-CASE", "SECRET: what a witness said"
SYSTEM: Final = "lacris"


@contextlib.asynccontextmanager
async def everything(installation: InstallationUnderTest) -> AsyncIterator[None]:
    """All services of the installation in this process, but for the NATS server."""
    layout = installation.layout
    connector = ConnectorSettings.load(layout.config(f"connector-{SYSTEM}"))
    behind = AnswersAtOnceAdapter(adapter="answers-at-once")
    parts = (
        ledger_main.running(LedgerSettings.load(layout.config("ledger"))),
        policy_main.running(PolicySettings.load(layout.config("policy"))),
        broker_main.running(BrokerSettings.load(layout.config("broker"))),
        connector_main.running(connector.model_copy(update={"behind": behind})),
    )
    async with contextlib.AsyncExitStack() as stack:
        for part in parts:
            await stack.enter_async_context(part)
        yield


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[ClientSettings]:
    """How LAPD's system reaches a broker with all that belongs to it."""
    installation = InstallationUnderTest(tmp_path / "data")
    try:
        installation.processes["nats"].start()
        async with everything(installation):
            yield ClientSettings.load(installation.client(LAPD))
    finally:
        installation.kill()


def token(settings: ClientSettings, search_id: str) -> str:
    """Of the development identity provider."""
    assert settings.identity_provider
    key = SigningKey.load(settings.identity_provider.signing_key)
    provider = DevelopmentIdentityProvider(settings.identity_provider.issuer, key)
    return provider.token(OFFICER, search_id)


async def search(settings: ClientSettings) -> tuple[PreparedSearch, Search, str]:
    """Submits a search and waits for its end, within one span of the client."""
    facts = own_case(search_id=str(uuid.uuid4()), case_number=CASE, narrative=NARRATIVE)
    async with Client.connect(settings) as client:
        key = client.trust.systems[SYSTEM].sealing_public_key
        prepared = seal_search(facts, b"a probe that nobody looks at", key)
        officer_token = token(settings, prepared.search_id)
        with telemetry.span(CLIENTS_WORK):
            ended = await client.submit(prepared, officer_token)
            async for changed in client.watch(prepared.search_id):
                ended = changed
        opened = client.open_answer(prepared, ended, OFFICER)
        assert opened.candidates
    return prepared, ended, officer_token


async def test_search_is_one_trace_through_every_service_and_back(
    settings: ClientSettings, signals: Signals
) -> None:
    _, ended, _ = await search(settings)
    assert ended.state == SEARCH_STATE_ANSWERED

    watched = [CLIENTS_WORK, f"{BROKER}/WatchSearch", f"{BROKER}/WatchSearch"]

    async def told() -> bool:
        lineages = [signals.lineage(span) for span in signals.spans]
        ends = [lineage[-1] for lineage in lineages]
        return watched in lineages and f"process {ANSWERS}" in ends and f"process {ORDERS}" in ends

    assert await until(told)
    submitted = [CLIENTS_WORK, f"{BROKER}/SubmitSearch", f"{BROKER}/SubmitSearch"]
    ordered = [*submitted, f"publish {ORDERS}", f"process {ORDERS}"]
    answered = [*ordered, f"publish {ANSWERS}", f"process {ANSWERS}"]
    lineages = [signals.lineage(span) for span in signals.spans]
    for lineage in (
        [*submitted, "request policy.evaluate", "process policy.evaluate"],
        [*submitted, "request ledger.append", "process ledger.append"],
        [*ordered, "connector.verify"],
        [*ordered, "connector.run"],
        [*answered, "request ledger.append", "process ledger.append"],
        watched,
    ):
        assert lineage in lineages, lineage
    of_the_search = [span for span in signals.spans if ORDERS in span.name or ANSWERS in span.name]
    assert len({span.context.trace_id for span in of_the_search if span.context}) == 1


async def test_search_is_counted_and_measured(settings: ClientSettings, signals: Signals) -> None:
    await search(settings)

    async def measured() -> bool:
        return any(span.name == f"process {ANSWERS}" for span in signals.spans)

    assert await until(measured)
    points = signals.points()
    decided = {one.attributes["outcome"]: one.value for one in points["countersign.decisions"]}
    assert {outcome: count for outcome, count in decided.items() if count} == {"permitted": 1}
    assert sum(point.count for point in points["countersign.ledger.append.duration"]) == 2
    waited = {
        point.attributes["messaging.destination.template"]: point.count
        for point in points["countersign.queue.age"]
    }
    assert waited == {ORDERS: 1, ANSWERS: 1}
    (open_searches,) = points["countersign.searches.open"]
    (oldest,) = points["countersign.searches.open.age"]
    assert (open_searches.value, oldest.value) == (0, 0)
    rules = {point.attributes["rule"] for point in points["countersign.policy.rules"]}
    assert any(rule.startswith("LAPD-") for rule in rules), rules
    (entries,) = points["countersign.ledger.size"]
    (signed_at,) = points["countersign.ledger.checkpoint.time"]
    assert entries.value >= 2
    assert 0 <= time.time() - signed_at.value < 3600
    for name in ("rpc.server.call.duration", "messaging.process.duration"):
        assert points[name]
        traces = {one.trace_id for point in points[name] for one in point.exemplars}
        assert traces & signals.traces, f"{name}: an exemplar leads to a trace"


async def test_nothing_sensitive_leaves_in_any_signal_of_a_search(
    settings: ClientSettings, signals: Signals
) -> None:
    prepared, _, officer_token = await search(settings)

    async def done() -> bool:
        return any(span.name == f"process {ANSWERS}" for span in signals.spans)

    assert await until(done)
    numbers = str(signals.points())
    said = signals.everything() + numbers
    assert f"{BROKER}/SubmitSearch" in said
    for secret in (CASE, NARRATIVE, OFFICER, officer_token, officer_token.split(".")[1]):
        assert secret not in said
    # The id has a place in a log, but would make a metric as long as the list of searches.
    assert "countersign.decisions" in numbers
    assert prepared.search_id not in numbers
