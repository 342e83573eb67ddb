"""Starts the policy service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from countersign.policy.v1.policy_pb2 import EvaluateBatchRequest
from countersign.policy.v1.policy_pb2_grpc import add_PolicyServiceServicer_to_server
from directive import signature, vocabulary_signature
from directive.book import BookError, load_book
from directive.entities import EntitiesError
from directive.evaluate import Evaluator
from directive.self_test import EngineUntrustworthy
from directive.signature import Signers
from directive.vocabulary import VocabularyError
from policy.applied import Applied, Current
from policy.authzen.front import Front
from policy.authzen.port import Port, serving
from policy.authzen.searches import SearchDomain, access
from policy.config import PolicySettings
from policy.deciding import Deciding
from policy.documents import READER, Documents, Following
from policy.publishing import Publishing
from policy.recording import Recording
from policy.registering import Registering
from policy.reviewing import Reviewer
from policy.service import ACCESS, SERVICE, PolicyServicer, TakingIn
from registry.folding import Fold
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.following import Source, followed
from shared.identity import SpiffeId
from shared.process import run_process
from shared.registry import Registry, TrustRoots
from shared.rpc import RunningServer, start_server
from shared.settings import SettingsError
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError

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
    authzen: Port | None
    """None when AuthZEN is not served."""

    @property
    def is_ready(self) -> bool:
        """Whether questions can come and be answered."""
        return self.bus.is_connected and (self.following is None or self.following.is_fresh)


def load(settings: PolicySettings) -> Applied:
    """Directives that are files, and what applies them; raises SettingsError. Never a part of them."""
    registry = _registry(settings)
    assert settings.directives is not None, "asked only then"
    assert registry is not None, "the settings see to it"
    try:
        trust = _trust(settings)
        vocabulary = vocabulary_signature.load(
            settings.vocabulary_folder, trust.vocabulary_signers if trust else ()
        )
        book = load_book(settings.directives, vocabulary, registry, _signers(settings))
        return Applied(book, Evaluator(book, registry), registry)
    except BookError as error:
        reasons = "\n  ".join(error.reasons)
        raise SettingsError(f"the directives are not loaded:\n  {reasons}") from error
    except (VocabularyError, EntitiesError, EngineUntrustworthy) as error:
        raise SettingsError(f"the directives are not loaded: {error}") from error


def _trust(settings: PolicySettings) -> TrustRoots | None:
    return None if settings.trust_roots is None else TrustRoots.load(settings.trust_roots)


def _signers(settings: PolicySettings) -> Signers | None:
    """The keys that directives must be signed with; raises SettingsError."""
    try:
        return signature.required(_trust(settings))
    except TlogError as error:
        raise SettingsError(f"trust_roots: directive_signers: {error}") from error


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


async def _either(bus_closed: asyncio.Event, ended: asyncio.Event) -> None:
    """End the process when the bus has closed for good, as when the ledger's documents cannot be applied."""
    await bus_closed.wait()
    ended.set()


def following_of(settings: PolicySettings, bus: Bus) -> Following:
    """What follows the ledger's documents; raises SettingsError."""
    assert settings.trust_roots is not None, "the settings see to it"
    try:
        trust = TrustRoots.load(settings.trust_roots)
        vocabulary = vocabulary_signature.load(settings.vocabulary_folder, trust.vocabulary_signers)
        logs = [parse_log_vkey(key) for key in trust.log_verifier_keys]
        # Who may take part, and whose keys sign an owner's first document.
        registry = _registry(settings) or Fold(trust.registry_signers, logs[0].name)
        if trust.directive_signers is None:
            # Whoever can hand something in could write anybody's directives.
            raise SettingsError(
                "trust_roots: directive_signers is missing: the ledger's directives count by who signed them "
                "(an empty table where only keys that owners register are to count)"
            )
    except (VocabularyError, TlogError) as error:
        raise SettingsError(f"the ledger's documents cannot be followed: {error}") from error
    publisher = str(SpiffeId(settings.trust_domain, "service", "policy"))
    documents = Documents(vocabulary, _signers(settings), registry)
    return Following(bus, documents, Source(logs, publisher), READER)


def _registry(settings: PolicySettings) -> Registry | None:
    return None if settings.registry is None else Registry.load(settings.registry)


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
) -> AsyncIterator[Port | None]:
    """The same decisions over HTTPS, if the settings say so. Raises SettingsError."""
    if settings.authzen is None:
        yield None
        return
    registry = _registry(settings)
    known = set(settings.authzen.agencies) if registry is None else registry.agencies.keys()
    unknown = sorted(set(settings.authzen.agencies) - known)
    if unknown:
        raise SettingsError(f"authzen.agencies: {unknown[0]} is not in the registry")
    domain = SearchDomain(
        deciding,
        lambda: current().registry,
        lambda: current().book.vocabulary,
        SystemClock(),
    )
    port = Port(Front(domain), settings.trust_domain, access(settings.authzen.agencies))
    async with serving(port, settings.authzen):
        yield port


def main() -> None:
    """Entry point of `countersign-policy`."""
    run_process("policy", "Says what the directives say.", PolicySettings, running)


if __name__ == "__main__":
    main()
