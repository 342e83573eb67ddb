"""Starts the broker."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import stamina

from broker import peering, waiting
from broker.admission import SERVICE, Admission
from broker.answers import Answers
from broker.config import BrokerSettings
from broker.config_checks import checks
from broker.discharging import Discharging
from broker.ending import Ending
from broker.given_up import hear_of_given_up
from broker.ledger import Ledger
from broker.limits import Limits
from broker.participants import Known, Participants, followed, of_file
from broker.peer_client import PeerClient
from broker.peer_service import PeerServicer
from broker.policy import Policy
from broker.referring import Referring
from broker.searching import Searching
from broker.service import BrokerServicer
from broker.streams import (
    ANSWERS_CONSUMER,
    ANSWERS_STREAM,
    OrderQueues,
    ensure_answers,
    ensure_orders,
)
from broker.watch import KnownSearches
from countersign.broker.v1.broker_pb2_grpc import add_BrokerServiceServicer_to_server
from registry.public import PublicDocuments
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.essential import essential
from shared.following import Following
from shared.following import followed as following_along
from shared.identity import SpiffeId
from shared.process import run_process
from shared.registry import Peer, Registry, TrustRoots
from shared.rejections import Rejections
from shared.rpc import RunningServer, start_server
from shared.signing import SigningKey
from shared.tokens import OfficerTokens

log = logging.getLogger(__name__)

GRACE_S = 20.0
"""Nobody waits for an end any longer; what is left may have to wait for policy, ledger and bus in turn."""
ANSWERS_IN_FLIGHT_MAX = 256
ANSWERS_TEMPLATE = "answers.{system}.{search}"

RPCS = (
    "CheckSearch",
    "SubmitSearch",
    "GetSearch",
    "WatchSearch",
    "ListSearches",
    "CancelSearch",
    "DischargeObligation",
    "ListSystems",
)


@dataclass(frozen=True)
class RunningBroker:
    """A broker that serves."""

    server: RunningServer
    bus: Bus
    registering: "Registering"

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""
        return self.bus.closed

    @property
    def is_ready(self) -> bool:
        """Whether policy, ledger and connectors can be reached at all, and who takes part is known."""
        return self.bus.is_connected and self.registering.is_fresh


@dataclass(frozen=True)
class Registering:
    """Where the broker takes from who takes part."""

    known: Known
    following: Following[PublicDocuments, Participants] | None = None
    """None where the registry is a file."""
    queues: OrderQueues | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether who takes part is known, and orders can be sent to those who were there at first."""
        if self.following is None or self.queues is None:
            return True
        return self.following.is_fresh and self.queues.tried.is_set()


def _agency(caller: SpiffeId) -> bool:
    return caller.kind == "agency"


async def _registering(bus: Bus, trust: TrustRoots, settings: BrokerSettings) -> Registering:
    """With the streams that are known of now. Raises Unavailable, and RegistryError."""
    clock = SystemClock()
    registry = None if settings.registry is None else Registry.load(settings.registry)
    async for attempt in stamina.retry_context(on=Unavailable, attempts=10, timeout=60):
        with attempt:
            await ensure_answers(bus, settings)
            for system in registry.systems if registry is not None else ():
                await ensure_orders(bus, system, settings)
    if registry is not None:
        return Registering(of_file(registry, OfficerTokens(registry, trust, clock)))
    following = followed(bus, trust, settings.trust_domain, clock)
    queues = OrderQueues(bus, following.current, settings)
    return Registering(Known(following.current, following.catch_up), following, queues)


@contextlib.asynccontextmanager
async def _kept(registering: Registering, bus: Bus, server: RunningServer) -> AsyncIterator[None]:
    """Follow what is registered, and say when calls can be taken and when no longer."""
    following, queues = registering.following, registering.queues
    if following is None or queues is None:
        yield
        return

    async def tell(_: bool) -> None:
        for service in ("", SERVICE):
            await server.set_serving(service, registering.is_fresh)

    async def tell_when_tried() -> None:
        await queues.tried.wait()
        await tell(True)

    async def end_with(following: asyncio.Event) -> None:
        await following.wait()
        bus.closed.set()

    await tell(False)
    tasks: list[asyncio.Task[None]] = [
        essential(queues.keep(), "queues for every system", bus.closed),
        asyncio.create_task(tell_when_tried()),
        asyncio.create_task(end_with(following.ended)),
    ]
    try:
        async with following_along(following, tell):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _sweeping(ending: Ending, bus: Bus, known: Known) -> list[asyncio.Task[None]]:
    """Keeps expiring searches, and has them measured; a broker that no longer does must end."""
    ending.observe()
    looking = waiting.keep_looking(bus, lambda: known.current().registry.systems, SystemClock())
    return [
        essential(ending.keep_sweeping(), "expiring searches", bus.closed),
        essential(looking, "measuring the queues", bus.closed),
    ]


@contextlib.asynccontextmanager
async def _closed_together(
    server: RunningServer, searches: KnownSearches
) -> AsyncIterator[list[RunningServer]]:
    """Closes every door at once, and before what the last calls still need; nobody waits at one."""
    doors = [server]
    try:
        yield doors
    finally:
        searches.stop()
        await asyncio.gather(*(door.stop(GRACE_S) for door in doors))


@dataclass(frozen=True)
class _Parts:
    """What a broker consists of."""

    servicer: BrokerServicer
    searches: KnownSearches
    answers: Answers
    ending: Ending
    limits: Limits
    referring: Referring
    for_peer: Callable[[Peer], PeerServicer]


def _parts(
    bus: Bus,
    registering: Registering,
    trust: TrustRoots,
    settings: BrokerSettings,
    clients: Mapping[str, PeerClient],
) -> _Parts:
    known, queues, clock = registering.known, registering.queues, SystemClock()
    searches = KnownSearches()
    ledger, policy = Ledger(bus, searches.under_way), Policy(bus, searches.under_way)
    limits, rejections = Limits(settings.limits, searches, clock), Rejections(clock)
    answers = Answers(
        bus=bus,
        ledger=ledger,
        known=searches,
        trust=trust,
        trust_domain=settings.trust_domain,
        rejections=rejections,
    )
    ending = Ending(bus=bus, ledger=ledger, known=searches, clock=clock)
    referring = Referring(ledger=ledger, known=searches, trust=trust, clients=clients, clock=clock)
    admission = Admission(known, ledger, limits, rejections)
    searching = Searching(
        bus=bus,
        ledger=ledger,
        policy=policy,
        admission=admission,
        limits=limits,
        known=searches,
        ending=ending,
        trust=trust,
        signing_key=SigningKey.load(settings.order_signing_key),
        clock=clock,
        default_wait_s=settings.default_wait.total_seconds(),
        witnesses_wait_s=settings.witnesses_wait.total_seconds(),
        make_queue=queues.make if queues is not None else None,
        referring=referring,
    )
    servicer = BrokerServicer(
        searching=searching,
        answers=answers,
        ending=ending,
        ledger=ledger,
        known=searches,
        participants=known,
        trust=trust,
        referring=referring,
        discharging=Discharging(ledger, admission, policy),
    )
    for_peer = partial(
        PeerServicer,
        here=settings.trust_domain,
        trust=trust,
        searching=searching,
        ending=ending,
        ledger=ledger,
        rejections=rejections,
        broker=servicer,
    )
    return _Parts(servicer, searches, answers, ending, limits, referring, for_peer)


@contextlib.asynccontextmanager
async def running(settings: BrokerSettings) -> AsyncIterator[RunningBroker]:
    """A broker, from its settings."""
    trust = TrustRoots.load(settings.trust_roots)
    async with contextlib.AsyncExitStack() as stack:
        peering.check(settings, trust)
        bus = await stack.enter_async_context(connected(settings.bus, "broker"))
        clients = await stack.enter_async_context(peering.calling(settings))
        registering = await _registering(bus, trust, settings)
        parts = _parts(bus, registering, trust, settings, clients)
        await hear_of_given_up(bus)
        await parts.answers.try_removing()
        await bus.consume(
            ANSWERS_STREAM,
            ANSWERS_CONSUMER,
            parts.answers.take_in,
            ANSWERS_IN_FLIGHT_MAX,
            ANSWERS_TEMPLATE,
        )
        server = await start_server(
            lambda grpc_server: add_BrokerServiceServicer_to_server(parts.servicer, grpc_server),
            services=[SERVICE],
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access={f"/{SERVICE}/{rpc}": _agency for rpc in RPCS},
            limit=parts.limits.call,
        )
        sweeping = _sweeping(parts.ending, bus, registering.known)
        try:
            async with (
                _kept(registering, bus, server),
                parts.referring.following(bus.closed),
                _closed_together(server, parts.searches) as doors,
            ):
                of_peers = peering.doors(settings, trust, parts.for_peer, parts.limits.peer)
                async for door in of_peers:
                    doors.append(door)
                yield RunningBroker(server, bus, registering)
        finally:
            for task in sweeping:
                task.cancel()
            await asyncio.gather(*sweeping, return_exceptions=True)


def main() -> None:
    """Entry point of `countersign-broker`."""
    run_process(
        "broker", "Takes face searches from agency systems.", BrokerSettings, running, checks
    )


if __name__ == "__main__":
    main()
