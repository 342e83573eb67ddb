"""Calls to the ledger's queries: found entries, counts, exports."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc

from countersign.client.config import ClientSettings
from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.query_pb2_grpc import LedgerQueryServiceStub
from shared.rpc import call, open_channel, service_error

SERVICE: Final = "countersign.ledger.v1.LedgerQueryService"
TIMEOUT_S: Final = 40.0
"""Longer than the ledger itself waits for its index."""
EXPORT_TIMEOUT_S: Final = 3600.0


class LedgerQueryClient:
    """A connection to the ledger. Every method raises ServiceError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = LedgerQueryServiceStub(channel)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: ClientSettings) -> AsyncIterator["LedgerQueryClient"]:
        """A client that is closed at the end."""
        async with open_channel(settings.ledger.address, settings.tls) as channel:
            yield cls(channel)

    async def query(self, request: pb.QueryEntriesRequest) -> pb.QueryEntriesResponse:
        """One page."""
        return await call(
            self._stub.QueryEntries, request, name=f"{SERVICE}/QueryEntries", timeout_s=TIMEOUT_S
        )

    async def count(
        self, wanted: pb.EntryFilter, group_by: Sequence[pb.Dimension.ValueType]
    ) -> pb.CountEntriesResponse:
        """Counts in groups."""
        return await call(
            self._stub.CountEntries,
            pb.CountEntriesRequest(filter=wanted, group_by=group_by),
            name=f"{SERVICE}/CountEntries",
            timeout_s=TIMEOUT_S,
        )

    async def shopping(self, request: pb.FindRouteShoppingRequest) -> pb.FindRouteShoppingResponse:
        """One page of permits that came after refusals."""
        name = f"{SERVICE}/FindRouteShopping"
        return await call(self._stub.FindRouteShopping, request, name=name, timeout_s=TIMEOUT_S)

    async def watch(self, wanted: pb.EntryFilter) -> AsyncIterator[pb.WatchQueryResponse]:
        """Entries as they are found, until the caller has had enough."""
        try:
            async for one in self._stub.WatchQuery(pb.WatchQueryRequest(filter=wanted)):
                yield one
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from error

    async def export(
        self, request: pb.ExportEntriesRequest
    ) -> AsyncIterator[pb.ExportEntriesResponse]:
        """The parts of an export, the beginning first."""
        try:
            async for part in self._stub.ExportEntries(request, timeout=EXPORT_TIMEOUT_S):
                yield part
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from error
