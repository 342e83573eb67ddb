"""Puts the disclosure of openings to work in a running ledger."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from ledger.config import LedgerSettings
from ledger.custody import Custody
from ledger.disclosure import Disclosure
from ledger.disclosure_service import LedgerDisclosureServicer, RecordedFinder, TurnedAway
from ledger.entry import Completer, Opening
from ledger.expungement import Expungement
from ledger.log import OpenLog
from ledger.openings import Openings
from ledger.recorded_requests import Index, RecordedRequests
from ledger.rights import People, Rights
from shared.clock import Clock, SystemClock
from shared.identity import SpiffeId
from shared.registry import Registry, RegistryError, TrustRoots
from shared.settings import SettingsError
from shared.tokens import LEDGER_AUDIENCE, OfficerTokens


@dataclass(frozen=True)
class Disclosing:
    """What answers for openings."""

    servicer: LedgerDisclosureServicer
    finder: RecordedFinder
    openings_of: Callable[[Sequence[int]], Awaitable[Mapping[int, Sequence[Opening]]]]
    """For the policy service, which decides by what stands in documents."""


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
        registry = None if settings.registry is None else Registry.load(settings.registry)
        people = People(_tokens(settings, registry, clock))
    except RegistryError as error:
        raise SettingsError(str(error)) from error
    custody = Custody(
        rights=Rights(registry),
        people=people,
        vault=openings.vault,
        archive=log.archive,
        sequencer=log.sequencer,
        completer=completer,
        clock=clock,
    )
    turned_away = TurnedAway(log.sequencer, completer, clock)
    disclosure = Disclosure(custody)
    with contextlib.closing(custody):
        requests = RecordedRequests(custody, log.sequencer, index)
        yield Disclosing(
            LedgerDisclosureServicer(
                disclosure, requests, Expungement(custody), log.archive, turned_away
            ),
            RecordedFinder(disclosure, turned_away),
            custody.openings_of,
        )


def _tokens(
    settings: LedgerSettings, registry: Registry | None, clock: Clock
) -> OfficerTokens | None:
    if registry is None or settings.trust_roots is None:
        return None
    trust = TrustRoots.load(settings.trust_roots)
    return OfficerTokens(registry, trust, clock, LEDGER_AUDIENCE)
