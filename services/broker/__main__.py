"""Starts the broker."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

import stamina

from broker.admission import SERVICE, Admission
from broker.answers import Answers
from broker.config import BrokerSettings
from broker.ending import Ending
from broker.ledger import Ledger
from broker.limits import Limits
from broker.policy import Policy
from broker.searching import Searching
from broker.service import BrokerServicer
from broker.streams import ANSWERS_CONSUMER, ANSWERS_STREAM, ensure_answers, ensure_orders
from broker.watch import KnownSearches
from countersign.broker.v1.broker_pb2_grpc import add_BrokerServiceServicer_to_server
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.identity import SpiffeId
from shared.process import run_process
from shared.registry import Registry, TrustRoots
from shared.rejections import Rejections
from shared.rpc import RunningServer, start_server
from shared.signing import SigningKey
from shared.tokens import OfficerTokens

log = logging.getLogger(__name__)

GRACE_S = 10.0
ANSWERS_IN_FLIGHT_MAX = 256
ANSWERS_TEMPLATE = "answers.{system}.{search}"

RPCS = (
    "CheckSearch",
    "SubmitSearch",
    "GetSearch",
    "WatchSearch",
    "ListSearches",
    "CancelSearch",
    "ListSystems",
)


@dataclass(frozen=True)
class RunningBroker:
    """A broker that serves."""

    server: RunningServer
    bus: Bus

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""
        return self.bus.closed

    @property
    def is_ready(self) -> bool:
        """Whether policy, ledger and connectors can be reached at all."""
        return self.bus.is_connected


def _agency(caller: SpiffeId) -> bool:
    return caller.kind == "agency"


async def _ensure_streams(bus: Bus, registry: Registry, settings: BrokerSettings) -> None:
    async for attempt in stamina.retry_context(on=Unavailable, attempts=10, timeout=60):
        with attempt:
            await ensure_answers(bus, settings)
            for system in registry.systems:
                await ensure_orders(bus, system, settings)


def _sweeping(ending: Ending, bus: Bus) -> asyncio.Task[None]:
    """Keeps expiring searches, and has them measured; a broker that no longer does must end."""
    ending.observe()
    sweeping = asyncio.create_task(ending.keep_sweeping())
    sweeping.add_done_callback(lambda _: bus.closed.set())
    return sweeping


async def _serve(
    servicer: BrokerServicer, settings: BrokerSettings, limits: Limits
) -> RunningServer:
    return await start_server(
        lambda grpc_server: add_BrokerServiceServicer_to_server(servicer, grpc_server),
        services=[SERVICE],
        listen=settings.listen,
        trust_domain=settings.trust_domain,
        access={f"/{SERVICE}/{rpc}": _agency for rpc in RPCS},
        limit=limits.call,
    )


@contextlib.asynccontextmanager
async def running(settings: BrokerSettings) -> AsyncIterator[RunningBroker]:
    """A broker, from its settings."""
    registry = Registry.load(settings.registry)
    trust = TrustRoots.load(settings.trust_roots)
    signing_key = SigningKey.load(settings.order_signing_key)
    clock = SystemClock()
    async with connected(settings.bus, "broker") as bus:
        await _ensure_streams(bus, registry, settings)
        ledger, known = Ledger(bus), KnownSearches()
        limits, rejections = Limits(settings.limits, known, clock), Rejections(clock)
        answers = Answers(
            bus=bus,
            ledger=ledger,
            known=known,
            trust=trust,
            trust_domain=settings.trust_domain,
            rejections=rejections,
        )
        ending = Ending(bus=bus, ledger=ledger, known=known, clock=clock)
        searching = Searching(
            bus=bus,
            ledger=ledger,
            policy=Policy(bus),
            admission=Admission(OfficerTokens(registry, trust, clock), ledger, limits, rejections),
            limits=limits,
            known=known,
            ending=ending,
            trust=trust,
            signing_key=signing_key,
            clock=clock,
            default_wait_s=settings.default_wait.total_seconds(),
        )
        servicer = BrokerServicer(
            searching=searching,
            answers=answers,
            ending=ending,
            ledger=ledger,
            known=known,
            registry=registry,
            trust=trust,
        )
        await bus.consume(
            ANSWERS_STREAM,
            ANSWERS_CONSUMER,
            answers.take_in,
            ANSWERS_IN_FLIGHT_MAX,
            ANSWERS_TEMPLATE,
        )
        server = await _serve(servicer, settings, limits)
        sweeping = _sweeping(ending, bus)
        try:
            yield RunningBroker(server, bus)
        finally:
            await server.stop(GRACE_S)
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)


def main() -> None:
    """Entry point of `countersign-broker`."""
    run_process("broker", "Takes face searches from agency systems.", BrokerSettings, running)


if __name__ == "__main__":
    main()
