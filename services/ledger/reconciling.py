"""Puts the comparison with connectors to work in a running ledger: reports, and those that do not come."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from ledger.config import LedgerSettings
from ledger.entry import Completer
from ledger.index_process import IndexProcess
from ledger.log import OpenLog
from ledger.missing_reports import MissingReports, looking
from ledger.runs_on_record import RunsOnRecord
from ledger.runs_service import Alarms, RunsService
from shared.bus import Bus
from shared.clock import SystemClock
from shared.identity import SpiffeId
from shared.registry import RegistryError, TrustRoots
from shared.settings import SettingsError
from shared.signing import BadKey, VerifyKey


@contextlib.asynccontextmanager
async def reconciling(
    settings: LedgerSettings, log: OpenLog, index: IndexProcess, bus: Bus
) -> AsyncIterator[None]:
    """Compare until the end. Without trust roots it knows no connector, and takes no report.

    Raises SettingsError for unreadable trust roots.
    """
    if settings.trust_roots is None:
        yield
        return
    try:
        trust = TrustRoots.load(settings.trust_roots)
        keys = {name: VerifyKey(one.answer_verify_key) for name, one in trust.systems.items()}
    except (RegistryError, BadKey) as error:
        raise SettingsError(str(error)) from error
    own = str(SpiffeId(settings.trust_domain, "service", "ledger"))
    clock = SystemClock()
    completer = Completer(own, clock, own=True)
    record = RunsOnRecord(log.archive, index)
    alarms = Alarms(log.sequencer, completer, own)
    await RunsService(keys, log.sequencer, completer, record, alarms, clock).serve(bus)
    missing = MissingReports(
        *(log.sequencer, record, alarms, clock),
        timedelta(hours=settings.reconciliation.grace_hours),
        settings.reconciliation.expected_from,
    )
    async with looking(missing, bus.closed):
        yield
