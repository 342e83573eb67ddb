"""What a standby serves: reads over gRPC, look-ups on the bus, and the public files."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from countersign.ledger.v1.ledger_pb2_grpc import add_LedgerServiceServicer_to_server
from ledger.archive import Archive
from ledger.bus_service import BusService
from ledger.config import LedgerSettings
from ledger.entry import Completer
from ledger.keys import LogKeys
from ledger.postgres_storage import PostgresDatabase
from ledger.public_files import public_files
from ledger.service import RPCS, SERVICE, LedgerServicer
from ledger.standby import NotWitnessed, Standby, StandbyLog
from ledger.tile_files import TileReader
from ledger.tree import Tiles
from ledger.witnessed import ASK_THE_WRITER, NO_WITNESSES, WitnessedReceipts
from shared.bus import connected
from shared.clock import SystemClock
from shared.identity import SpiffeId
from shared.rpc import RunningServer, start_server

GRACE_S = 0.5
"""Bound on the calls under way when this replica is to write: whoever waits for it waits longer."""


@dataclass(frozen=True)
class StandingBy:
    """A standby that serves."""

    server: RunningServer
    ended: asyncio.Event


def _any_authenticated(_: SpiffeId) -> bool:
    return True


@contextlib.asynccontextmanager
async def standing_by(
    settings: LedgerSettings, keys: LogKeys, database: PostgresDatabase
) -> AsyncIterator[StandingBy]:
    """Follow the writer, and serve what was verified."""
    async with contextlib.AsyncExitStack() as stack:
        tiles = Tiles()
        reading = stack.enter_context(contextlib.closing(database.open_for_reading()))
        standby = Standby(reading, keys.verifiers, tiles)
        archive = Archive(database.open_for_reading(), tiles, lambda: standby.published)
        stack.callback(archive.close)
        following = asyncio.create_task(standby.follow())
        stack.push_async_callback(_cancelled, following)

        def tile_reader() -> TileReader:
            return TileReader(database.open_for_reading(), lambda: standby.published)

        log = StandbyLog(standby, archive, tile_reader)
        lacking = NO_WITNESSES if settings.witnessing is None else ASK_THE_WRITER
        witnessed = WitnessedReceipts(archive, None, lacking)
        bus = await stack.enter_async_context(connected(settings.bus, "ledger"))
        servicer = LedgerServicer(archive, standby, keys.vkeys[0], witnessed)
        server = await start_server(
            lambda grpc_server: add_LedgerServiceServicer_to_server(servicer, grpc_server),
            services=[SERVICE],
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access={f"/{SERVICE}/{rpc}": _any_authenticated for rpc in RPCS},
        )
        stack.push_async_callback(server.stop, GRACE_S)
        # The writer alone writes the static copy.
        served = settings.model_copy(update={"export": None})
        shown = None if settings.witnessing is None else NotWitnessed()
        await stack.enter_async_context(public_files(served, log, keys.verifiers, shown))
        if not database.only_read:
            # A hot standby of the database may be behind: it is not asked what became of a search.
            own = Completer(
                str(SpiffeId(settings.trust_domain, "service", "ledger")), SystemClock()
            )
            look_ups = BusService(own, standby, archive, witnessed, fresh=standby.refresh)
            await look_ups.serve_look_ups(bus)
        yield StandingBy(server, standby.ended)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
