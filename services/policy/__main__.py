"""Starts the policy service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from countersign.policy.v1.policy_pb2 import EvaluateBatchRequest
from countersign.policy.v1.policy_pb2_grpc import add_PolicyServiceServicer_to_server
from directive import signature
from directive.book import Book, BookError, load_book
from directive.entities import EntitiesError
from directive.evaluate import Evaluator
from directive.self_test import EngineUntrustworthy
from directive.signature import Signers
from directive.vocabulary import Vocabulary, VocabularyError
from policy.authzen.front import Front
from policy.authzen.port import Port, serving
from policy.authzen.searches import SearchDomain, access
from policy.config import PolicySettings
from policy.deciding import Deciding
from policy.service import ACCESS, SERVICE, PolicyServicer
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.process import run_process
from shared.registry import Registry, TrustRoots
from shared.rpc import RunningServer, start_server
from shared.settings import SettingsError
from tlog.errors import TlogError

GRACE_S = 5.0
IN_FLIGHT_MAX = 32
"""Messages of up to 64 questions. A broker has one under way, so it takes many brokers to be refused."""


@dataclass(frozen=True)
class RunningPolicy:
    """A policy service that serves."""

    server: RunningServer
    bus: Bus
    authzen: Port | None
    """None when AuthZEN is not served."""

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""
        return self.bus.closed

    @property
    def is_ready(self) -> bool:
        """Whether questions can come."""
        return self.bus.is_connected


def load(settings: PolicySettings, registry: Registry) -> tuple[Book, Evaluator]:
    """The directives and what applies them; raises SettingsError. Never a part of the directives."""
    try:
        vocabulary = Vocabulary.load(settings.directives)
        book = load_book(settings.directives, vocabulary, registry, _signers(settings))
        return book, Evaluator(book, registry)
    except BookError as error:
        reasons = "\n  ".join(error.reasons)
        raise SettingsError(f"the directives are not loaded:\n  {reasons}") from error
    except (VocabularyError, EntitiesError, EngineUntrustworthy) as error:
        raise SettingsError(f"the directives are not loaded: {error}") from error


def _signers(settings: PolicySettings) -> Signers | None:
    """The keys that directives must be signed with; raises SettingsError."""
    trust = TrustRoots.load(settings.trust_roots) if settings.trust_roots is not None else None
    try:
        return signature.required(trust)
    except TlogError as error:
        raise SettingsError(f"trust_roots: directive_signers: {error}") from error


@contextlib.asynccontextmanager
async def running(settings: PolicySettings) -> AsyncIterator[RunningPolicy]:
    """A policy service, from its settings."""
    registry = Registry.load(settings.registry)
    book, evaluator = load(settings, registry)
    deciding = Deciding(evaluator, registry)
    servicer = PolicyServicer(deciding, book, SystemClock())
    async with connected(settings.bus, "policy") as bus:
        server = await start_server(
            lambda grpc_server: add_PolicyServiceServicer_to_server(servicer, grpc_server),
            services=[SERVICE],
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access=ACCESS,
        )
        try:
            await bus.serve(
                "policy.evaluate",
                "policy",
                EvaluateBatchRequest,
                deciding.evaluate_batch,
                IN_FLIGHT_MAX,
            )
            async with _authzen(settings, deciding, registry, book) as authzen:
                yield RunningPolicy(server, bus, authzen)
        finally:
            await server.stop(GRACE_S)


@contextlib.asynccontextmanager
async def _authzen(
    settings: PolicySettings, deciding: Deciding, registry: Registry, book: Book
) -> AsyncIterator[Port | None]:
    """The same decisions over HTTPS, if the settings say so. Raises SettingsError."""
    if settings.authzen is None:
        yield None
        return
    unknown = sorted(set(settings.authzen.agencies) - registry.agencies.keys())
    if unknown:
        raise SettingsError(f"authzen.agencies: {unknown[0]} is not in the registry")
    domain = SearchDomain(deciding, lambda: registry, lambda: book.vocabulary, SystemClock())
    port = Port(Front(domain), settings.trust_domain, access(settings.authzen.agencies))
    async with serving(port, settings.authzen):
        yield port


def main() -> None:
    """Entry point of `countersign-policy`."""
    run_process("policy", "Says what the directives say.", PolicySettings, running)


if __name__ == "__main__":
    main()
