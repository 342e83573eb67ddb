"""LedgerAppendService: appends over gRPC, for the broker alone."""

from typing import Final

from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1.append_pb2_grpc import LedgerAppendServiceServicer
from ledger.bus_service import BusService
from shared.identity import SpiffeId
from shared.rpc import AccessRule, Context

SERVICE: Final = "countersign.ledger.v1.LedgerAppendService"


def _broker(caller: SpiffeId) -> bool:
    return (caller.kind, caller.name) == ("service", "broker")


ACCESS: Final[dict[str, AccessRule]] = {f"/{SERVICE}/Append": _broker}


class LedgerAppendServicer(LedgerAppendServiceServicer):
    """The same appends as over the bus, behind another door."""

    def __init__(self, on_bus: BusService) -> None:
        self._on_bus = on_bus

    async def Append(  # noqa: N802
        self, request: pb.AppendRequest, context: Context
    ) -> pb.AppendResponse:
        """See append.proto."""
        return await self._on_bus.append(request)
