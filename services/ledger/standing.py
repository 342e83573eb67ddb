"""What a standby serves: reads and queries over gRPC, look-ups on the bus, and the public files.

What has to be on record before it is answered (openings, exports) it refuses, and says who answers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NoReturn

import grpc

from countersign.ledger.v1 import disclosure_pb2, query_pb2
from countersign.ledger.v1.disclosure_pb2_grpc import (
    LedgerDisclosureServiceServicer,
    add_LedgerDisclosureServiceServicer_to_server,
)
from countersign.ledger.v1.ledger_pb2_grpc import add_LedgerServiceServicer_to_server
from countersign.ledger.v1.query_pb2_grpc import add_LedgerQueryServiceServicer_to_server
from ledger import disclosure_service, query_service
from ledger.archive import Archive
from ledger.bus_service import BusService
from ledger.config import LedgerSettings
from ledger.entry import Completer
from ledger.index_process import IndexProcess
from ledger.keys import LogKeys
from ledger.postgres_storage import PostgresDatabase
from ledger.public_files import public_files
from ledger.query_service import LedgerQueryServicer
from ledger.reading_doors import READING
from ledger.service import SERVICE, LedgerServicer
from ledger.standby import NotWitnessed, Standby, StandbyLog, not_writer
from ledger.tile_files import TileReader
from ledger.tree import Tiles
from ledger.witnessed import ASK_THE_WRITER, NO_WITNESSES, WitnessedReceipts
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.identity import SpiffeId
from shared.rpc import Context, RunningServer, start_server

GRACE_S = 0.5
"""Bound on the calls under way when this replica is to write: whoever waits for it waits longer."""


@dataclass(frozen=True)
class StandingBy:
    """A standby that serves."""

    server: RunningServer
    bus: Bus
    standby: Standby

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""
        return self.standby.ended

    @property
    def is_ready(self) -> bool:
        """Whether it follows the log, and look-ups can come."""
        return self.bus.is_connected and self.standby.reads


class NoOpenings:
    """Looks through no openings: that has to be on record first, and their keys are the writer's."""

    async def find(self, reader: SpiffeId, match: query_pb2.OpeningMatch) -> list[int]:
        """Refuses."""
        raise not_writer("look-ups by what openings hold are put on record first")


class StandbyQueryServicer(LedgerQueryServicer):
    """Queries, but for exports."""

    async def ExportEntries(  # noqa: N802
        self, request: query_pb2.ExportEntriesRequest, context: Context
    ) -> AsyncIterator[query_pb2.ExportEntriesResponse]:
        """Refuses."""
        raise not_writer("an export is put on record first")
        yield


class DisclosureElsewhere(LedgerDisclosureServiceServicer):
    """Refuses, whoever asks."""

    async def Disclose(  # noqa: N802
        self, request: disclosure_pb2.DiscloseRequest, context: Context
    ) -> NoReturn:
        """Refuses."""
        raise _disclosure()

    async def ReadRequests(  # noqa: N802
        self, request: disclosure_pb2.ReadRequestsRequest, context: Context
    ) -> AsyncIterator[disclosure_pb2.ReadRequestsResponse]:
        """Refuses."""
        raise _disclosure()
        yield  # what makes it a stream

    async def RequestExpunge(  # noqa: N802
        self, request: disclosure_pb2.RequestExpungeRequest, context: Context
    ) -> NoReturn:
        """Refuses."""
        raise _disclosure()

    async def ApproveExpunge(  # noqa: N802
        self, request: disclosure_pb2.ApproveExpungeRequest, context: Context
    ) -> NoReturn:
        """Refuses."""
        raise _disclosure()

    async def DeclineExpunge(  # noqa: N802
        self, request: disclosure_pb2.DeclineExpungeRequest, context: Context
    ) -> NoReturn:
        """Refuses."""
        raise _disclosure()

    async def ListExpungeRequests(  # noqa: N802
        self, request: disclosure_pb2.ListExpungeRequestsRequest, context: Context
    ) -> NoReturn:
        """Refuses."""
        raise _disclosure()


def _disclosure() -> Unavailable:
    return not_writer("openings are the writer's to disclose and destroy, on record first")


@contextlib.asynccontextmanager
async def standing_by(
    settings: LedgerSettings, keys: LogKeys, index: IndexProcess, database: PostgresDatabase
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
        own = Completer(str(SpiffeId(settings.trust_domain, "service", "ledger")), SystemClock())
        servicer = LedgerServicer(archive, standby, keys.vkeys[0], witnessed)
        queries = StandbyQueryServicer(archive, standby, index, own, NoOpenings())

        def register(on: grpc.aio.Server) -> None:
            add_LedgerServiceServicer_to_server(servicer, on)
            add_LedgerQueryServiceServicer_to_server(queries, on)
            add_LedgerDisclosureServiceServicer_to_server(DisclosureElsewhere(), on)

        server = await start_server(
            register,
            services=[SERVICE, query_service.SERVICE, disclosure_service.SERVICE],
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access=READING | disclosure_service.ACCESS,
        )
        await server.set_serving(disclosure_service.SERVICE, False)
        stack.push_async_callback(server.stop, GRACE_S)
        # The writer alone writes the static copy.
        served = settings.model_copy(update={"export": None})
        shown = None if settings.witnessing is None else NotWitnessed()
        await stack.enter_async_context(public_files(served, log, keys.verifiers, shown))
        if not database.only_read:
            # A hot standby of the database may be behind: it is not asked what became of a search.
            look_ups = BusService(own, standby, archive, witnessed, fresh=standby.refresh)
            await look_ups.serve_look_ups(bus)
        yield StandingBy(server, bus, standby)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
