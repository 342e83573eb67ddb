"""Puts the disclosure of openings to work in a running ledger."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ledger.config import LedgerSettings
from ledger.custody import Custody
from ledger.disclosure import Disclosure
from ledger.disclosure_service import LedgerDisclosureServicer, RecordedFinder, TurnedAway
from ledger.documents import key_after
from ledger.entry import Completer, Opening
from ledger.expungement import Expungement
from ledger.log import OpenLog
from ledger.openings import Openings
from ledger.recorded_requests import Index, RecordedRequests
from ledger.registered import Known, OwnRegistry
from ledger.rights import People, Rights
from registry.public import PublicDocuments
from shared.clock import Clock, SystemClock
from shared.identity import SpiffeId
from shared.registry import Registry, RegistryError, TrustRoots
from shared.settings import SettingsError
from shared.tokens import LEDGER_AUDIENCE, OfficerTokens
from tlog.errors import TlogError


@dataclass(frozen=True)
class Disclosing:
    """What answers for openings."""

    servicer: LedgerDisclosureServicer
    finder: RecordedFinder
    openings_of: Callable[[Sequence[int]], Awaitable[Mapping[int, Sequence[Opening]]]]
    """For the policy service, which decides by what stands in documents."""
    registered: OwnRegistry | None
    """To be told of each document; None where the registry is a file, or nobody reads."""


@contextlib.asynccontextmanager
async def disclosing(
    settings: LedgerSettings,
    log: OpenLog,
    openings: Openings,
    index: Index,
    clock: Clock | None = None,
) -> AsyncIterator[Disclosing]:
    """Disclose by right until the end. Raises SettingsError for an unreadable registry."""
    clock = clock or SystemClock()
    own = str(SpiffeId(settings.trust_domain, "service", "ledger"))
    completer = Completer(own, clock, sealer=openings.sealer, own=True)
    try:
        registered, current = _registered(settings, log, clock)
    except (RegistryError, TlogError) as error:
        raise SettingsError(str(error)) from error

    def registry() -> Registry | None:
        known = current()
        return None if known is None else known.registry

    def tokens() -> OfficerTokens | None:
        known = current()
        return None if known is None else known.tokens

    custody = Custody(
        rights=Rights(registry),
        people=People(tokens),
        vault=openings.vault,
        archive=log.archive,
        sequencer=log.sequencer,
        completer=completer,
        clock=clock,
    )
    turned_away = TurnedAway(log.sequencer, completer, clock)
    disclosure = Disclosure(custody)
    with contextlib.closing(custody), _read(registered):
        requests = RecordedRequests(custody, log.sequencer, index)
        yield Disclosing(
            LedgerDisclosureServicer(
                disclosure, requests, Expungement(custody), log.archive, turned_away
            ),
            RecordedFinder(disclosure, turned_away),
            custody.openings_of,
            registered,
        )


@contextlib.contextmanager
def _read(registered: OwnRegistry | None) -> Iterator[None]:
    """Read from the first document on, and again when that failed, meanwhile appends go on."""
    reading = None if registered is None else asyncio.create_task(registered.keep_read())
    try:
        yield
    finally:
        if reading is not None:
            reading.cancel()


def _registered(
    settings: LedgerSettings, log: OpenLog, clock: Clock
) -> tuple[OwnRegistry | None, Callable[[], Known | None]]:
    """What gives who takes part. Raises RegistryError, and TlogError for keys that cannot be read."""
    trust = None if settings.trust_roots is None else TrustRoots.load(settings.trust_roots)
    if settings.registry is not None:
        registry = Registry.load(settings.registry)
        by_file = None
        if trust is not None:
            by_file = OfficerTokens(registry, trust, clock, LEDGER_AUDIENCE)
        known = Known(registry, by_file)
        return None, lambda: known
    if trust is None:
        return None, lambda: None
    tokens = OfficerTokens(Registry(agencies={}), trust, clock, LEDGER_AUDIENCE)
    own = OwnRegistry(PublicDocuments(trust, settings.origin), tokens, log.archive, key_after)
    return own, own.current
