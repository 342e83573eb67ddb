"""Starts the policy service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from countersign.policy.v1.policy_pb2 import EvaluateBatchRequest
from countersign.policy.v1.policy_pb2_grpc import add_PolicyServiceServicer_to_server
from policy.applied import Current
from policy.config import PolicySettings
from policy.config_checks import checks
from policy.deciding import Deciding
from policy.documents import READER, Following
from policy.publishing import Publishing
from policy.recording import Recording
from policy.registering import Registering
from policy.reviewing import Reviewer
from policy.service import ACCESS, SERVICE, PolicyServicer, TakingIn
from policy.sources import asking_agencies, documents_of, load
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.following import followed
from shared.process import run_process
from shared.rpc import RunningServer, start_server

if TYPE_CHECKING:
    from policy.authzen.port import Port

GRACE_S = 5.0
IN_FLIGHT_MAX = 32
"""Messages of up to 64 questions. A broker has one under way, so it takes many brokers to be refused."""


@dataclass(frozen=True)
class RunningPolicy:
    """A policy service that serves."""

    server: RunningServer
    bus: Bus
    ended: asyncio.Event
    following: Following | None
    """None when directives are files."""
    authzen: "Port | None"
    """None when AuthZEN is not served."""

    @property
    def is_ready(self) -> bool:
        """Whether questions can come and be answered."""
        return self.bus.is_connected and (self.following is None or self.following.is_fresh)


@dataclass(frozen=True)
class _Rules:
    """Where decisions take their rules from."""

    current: Current
    following: Following | None = None
    taking_in: TakingIn | None = None


def _rules(settings: PolicySettings, bus: Bus) -> _Rules:
    if settings.directives is not None:
        applied = load(settings)
        return _Rules(lambda: applied)
    following = following_of(settings, bus)
    recording = Recording(bus)
    reviewer = Reviewer(settings.vocabulary_folder)
    taking_in = TakingIn(
        Publishing(following, recording, reviewer, SystemClock()),
        Registering(following, recording, SystemClock()),
    )
    return _Rules(following.current, following, taking_in)


def following_of(settings: PolicySettings, bus: Bus) -> Following:
    """What follows the ledger's documents; raises SettingsError."""
    return Following(bus, *documents_of(settings), READER)


async def _either(bus_closed: asyncio.Event, ended: asyncio.Event) -> None:
    """End the process when the bus has closed for good, as when the ledger's documents cannot be applied."""
    await bus_closed.wait()
    ended.set()


@contextlib.asynccontextmanager
async def running(settings: PolicySettings) -> AsyncIterator[RunningPolicy]:
    """A policy service, from its settings."""
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(settings.bus, "policy"))
        rules = _rules(settings, bus)
        following = rules.following
        deciding = Deciding(rules.current, following.catch_up if following else None)
        servicer = PolicyServicer(deciding, rules.current, SystemClock(), rules.taking_in)
        server = await start_server(
            lambda grpc_server: add_PolicyServiceServicer_to_server(servicer, grpc_server),
            services=[SERVICE],
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access=ACCESS,
        )
        stack.push_async_callback(server.stop, GRACE_S)
        ended = bus.closed
        if following is not None:
            ended = following.ended
            closed = asyncio.create_task(_either(bus.closed, ended))
            stack.callback(closed.cancel)

            async def tell(fresh: bool) -> None:
                for service in ("", SERVICE):
                    await server.set_serving(service, fresh)

            await tell(False)
            await stack.enter_async_context(followed(following, tell))
        await bus.serve(
            "policy.evaluate",
            "policy",
            EvaluateBatchRequest,
            deciding.evaluate_batch,
            IN_FLIGHT_MAX,
        )
        authzen = await stack.enter_async_context(_authzen(settings, deciding, rules.current))
        yield RunningPolicy(server, bus, ended, following, authzen)


@contextlib.asynccontextmanager
async def _authzen(
    settings: PolicySettings, deciding: Deciding, current: Current
) -> "AsyncIterator[Port | None]":
    """The same decisions over HTTPS, if the settings say so. Raises SettingsError."""
    if settings.authzen is None:
        yield None
        return
    # Only here: most of what they read is a web server.
    from policy.authzen.front import Front
    from policy.authzen.port import Port, serving
    from policy.authzen.searches import SearchDomain, access

    agencies = asking_agencies(settings)
    domain = SearchDomain(
        deciding,
        lambda: current().registry,
        lambda: current().book.vocabulary,
        SystemClock(),
    )
    port = Port(Front(domain), settings.trust_domain, access(agencies))
    async with serving(port, settings.authzen):
        yield port


def main() -> None:
    """Entry point of `countersign-policy`."""
    run_process("policy", "Says what the directives say.", PolicySettings, running, checks)


if __name__ == "__main__":
    main()
