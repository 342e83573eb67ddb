"""Who takes part, as the broker knows it: from a file, or as owners publish it in the ledger.

The broker follows the public part alone. Who the officers are, and how they stand, is opened to the policy
service only, which also refuses an officer of another agency.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from registry import public
from registry.findings import RegistryRefused
from registry.public import PublicDocuments
from shared.bus import Bus
from shared.clock import Clock
from shared.errors import Unavailable
from shared.following import Following, Reader, Source
from shared.identity import SpiffeId
from shared.registry import Registry, RegistryError, TrustRoots
from shared.tokens import OfficerTokens
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError


@dataclass(frozen=True)
class Participants:
    """One state of it. Replaced as a whole, never changed."""

    registry: Registry
    tokens: OfficerTokens
    documents_index: int | None = None
    """The newest document in it; None before the first, and where the registry is a file."""


@dataclass(frozen=True)
class Known:
    """Gives what counts."""

    current: Callable[[], Participants]
    """Raises Unavailable when it may be out of date."""
    catch_up: Callable[[], Awaitable[Participants]] | None = None
    """None where the registry is a file, which is read once."""

    async def reaching(self, documents_index: int | None) -> Participants:
        """What counts with this document in it; raises Unavailable."""
        now = self.current()
        if self.catch_up is None or documents_index is None:
            return now
        if now.documents_index is None or now.documents_index < documents_index:
            now = await self.catch_up()
        if now.documents_index is None or now.documents_index < documents_index:
            raise Unavailable(
                "REGISTRY_STALE",
                f"the decision knows document {documents_index}, and the ledger does not tell of it",
                retry_after_s=1,
            )
        return now


def of_file(registry: Registry, tokens: OfficerTokens) -> Known:
    """What a file says, as long as the process lives."""
    read = Participants(registry, tokens)
    return Known(lambda: read)


def followed(
    bus: Bus, trust: TrustRoots, trust_domain: str, clock: Clock
) -> Following[PublicDocuments, Participants]:
    """What follows the owners' documents; raises RegistryError."""
    tokens = OfficerTokens(Registry(agencies={}), trust, clock)

    def make(documents: PublicDocuments) -> Participants:
        nonlocal tokens
        made = documents.made()
        tokens = tokens.with_registered(made.registry, made.providers)
        return Participants(made.registry, tokens, made.head)

    try:
        logs = [parse_log_vkey(key) for key in trust.log_verifier_keys]
        documents = PublicDocuments(trust, logs[0].name)
    except TlogError as error:
        raise RegistryError(f"trust_roots: a verifier key cannot be read: {error}") from error
    publisher = str(SpiffeId(trust_domain, "service", "policy"))
    reader = Reader[PublicDocuments, Participants](
        subject=public.SUBJECT, stale="REGISTRY_STALE", make=make, refusals=(RegistryRefused,)
    )
    return Following(bus, documents, Source(logs, publisher), reader)
