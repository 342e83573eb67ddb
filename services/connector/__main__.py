"""Starts a connector."""

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from connector.answering import Answerer, Keys, Retries, Scale
from connector.at_once import AnswersAtOnce
from connector.config import AnswersAtOnceAdapter, ConnectorSettings
from connector.config_checks import checks
from connector.expected import agree, expectations
from connector.orders import Orders
from connector.reference import ReferenceSettings, ReferenceSystem
from connector.reporting import Reporter
from connector.runs import RunStore
from connector.state import State, StateError, candidate_key, open_state
from connector.system import FaceSystem, SystemUnusable
from connector.together import signed_together
from connector.worker_messages import Bounds
from shared.bus import Bus, connected
from shared.clock import Clock, SystemClock
from shared.process import run_process
from shared.registry import Registry, TrustRoots
from shared.rpc import RunningServer, start_server
from shared.sealing import PrivateKey
from shared.settings import SettingsError
from shared.signing import SigningKey

ORDERS_CONSUMER = "connector"
ORDERS_TEMPLATE = "orders.{system}.{search}"

GRACE_S = 5.0
"""How long health checks may take to finish at the end."""

HEALTH_EVERY_S = 2.0
"""How soon the health port says that the bus is gone, or back."""

FORGET_EVERY_S = 3600.0
"""How often answers past their time are deleted: days are kept, so an hour is exact enough."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningConnector:
    """A connector that takes orders."""

    server: RunningServer
    bus: Bus

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""
        return self.bus.closed

    @property
    def is_ready(self) -> bool:
        """Whether orders can come."""
        return self.bus.is_connected


def orders_stream(system: str) -> str:
    """The stream of a system's orders, which the broker makes."""
    return f"ORDERS_{system.upper().replace('-', '_')}"


def system_behind(settings: ConnectorSettings, state: State) -> FaceSystem:
    """The system that the configuration names. A new adapter is added here and in `config`."""
    behind = settings.behind
    if isinstance(behind, AnswersAtOnceAdapter):
        return AnswersAtOnce()
    return ReferenceSystem(
        ReferenceSettings(
            gallery=behind.folder,
            store=state.embeddings,
            workers=behind.workers,
            search_s_max=behind.search_s_max,
            eye_distance_px_min=behind.eye_distance_px_min,
            bounds=Bounds(memory_bytes=behind.memory_mb_max * 1024 * 1024, cpu_s=behind.cpu_s_max),
        )
    )


def read_keys(settings: ConnectorSettings, trust: TrustRoots, state: State) -> Keys:
    """The connector's secrets, if the trust roots agree; raises SettingsError or BadKey."""
    keys = Keys(
        answers=SigningKey.load(settings.answer_signing_key),
        probes=PrivateKey.load(settings.probe_opening_key),
        candidate_ids=candidate_key(state),
    )
    agree(settings, trust, keys.answers, keys.probes)
    return keys


@contextlib.asynccontextmanager
async def running(
    settings: ConnectorSettings,
    behind_of: Callable[[ConnectorSettings, State], FaceSystem] = system_behind,
) -> AsyncIterator[RunningConnector]:
    """A connector, from its settings, before the system that they name."""
    clock = SystemClock()
    registry, trust = Registry.load(settings.registry), TrustRoots.load(settings.trust_roots)
    expected = expectations(settings, registry, trust)
    async with contextlib.AsyncExitStack() as stack:
        try:
            state = open_state(settings.state)
            keys = read_keys(settings, trust, state)
            runs = RunStore(state.runs, functools.partial(signed_together, keys.answers))
            stack.push_async_callback(runs.close)
            behind = behind_of(settings, state)
            stack.push_async_callback(behind.close)
            gallery_size = await behind.start()
        except (StateError, SystemUnusable, sqlite3.Error) as error:
            raise SettingsError(str(error)) from error
        fields = {"algorithm": behind.algorithm, "gallery_size": gallery_size}
        log.info("system behind ready", extra={"fields": fields})
        # The bus is closed before the system behind, so that orders in work can be finished.
        bus = await stack.enter_async_context(
            connected(settings.bus, f"connector-{settings.system}")
        )
        answerer = _answerer(settings, keys, behind, clock)
        orders = Orders(expected, answerer, runs, bus, clock)
        reporter = Reporter(settings.system, keys.answers, expected.logs, runs, bus, clock)
        await reporter.begin()
        await bus.consume(
            orders_stream(settings.system),
            ORDERS_CONSUMER,
            orders.take,
            settings.orders_in_flight_max,
            ORDERS_TEMPLATE,
        )
        server = await start_server(
            lambda _: None,
            services=[],
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access={},
        )
        stack.push_async_callback(server.stop, GRACE_S)
        tending = [
            asyncio.create_task(_tell_health(server, bus)),
            asyncio.create_task(_forget_old(runs, settings, clock)),
            asyncio.create_task(reporter.run()),
        ]
        stack.push_async_callback(_cancel, tending)
        yield RunningConnector(server, bus)


def _answerer(
    settings: ConnectorSettings, keys: Keys, behind: FaceSystem, clock: Clock
) -> Answerer:
    scale, retries = settings.scale, settings.retries
    return Answerer(
        system=settings.system,
        gallery=settings.gallery,
        keys=keys,
        behind=behind,
        scale=Scale(scale.minimum, scale.maximum, scale.threshold, scale.false_match_rate),
        retries=Retries(retries.attempts, retries.wait_initial_s, retries.wait_max_s),
        clock=clock,
    )


async def _tell_health(server: RunningServer, bus: Bus) -> None:
    """Serving means: orders can come. Ends with the connector."""
    serving = True
    while True:
        await asyncio.sleep(HEALTH_EVERY_S)
        if bus.is_connected != serving:
            serving = bus.is_connected
            await server.set_serving("", serving)


async def _forget_old(runs: RunStore, settings: ConnectorSettings, clock: Clock) -> None:
    """Delete answers past their time. Ends with the connector."""
    while True:
        try:
            forgotten = await runs.forget(clock.now() - settings.answers_kept)
            log.info("old answers deleted", extra={"fields": {"answers": forgotten}})
        except sqlite3.Error as error:
            fields = {"error": type(error).__name__}
            log.warning("could not delete old answers", extra={"fields": fields})
        await asyncio.sleep(FORGET_EVERY_S)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Entry point of `countersign-connector`."""
    run_process(
        "connector",
        "Runs permitted face searches on one system.",
        ConnectorSettings,
        running,
        checks,
    )


if __name__ == "__main__":
    main()
