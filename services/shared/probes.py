"""Answers an orchestrator's probes: the gRPC health protocol, without TLS, on a port of its own.

Three names, each with a meaning of its own:

- `live`: the process handles events. It never depends on the bus or a database: no restart mends those.
- `started`: the service has once come to serve. Until then the orchestrator leaves it alone.
- `ready`: it can do its work now. Not while the bus is away, and no longer once it was told to stop.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from shared.errors import NotFound, to_status
from shared.settings import ProbesSettings, SettingsError

LIVE: Final = "live"
STARTED: Final = "started"
READY: Final = "ready"

CONCURRENT_CHECKS_MAX: Final = 16
"""One orchestrator asks three questions at a time."""
CHECK_BYTES_MAX: Final = 1024


class Working(Protocol):
    """A service that runs."""

    @property
    def is_ready(self) -> bool:
        """Whether it can do its work now."""


@dataclass
class Life:
    """How far a process has come."""

    working: Working | None = None
    """Set once the service serves."""
    stopping: bool = False

    def answers(self) -> dict[str, bool]:
        """Give each name's answer, as of now."""
        working = self.working
        return {
            LIVE: True,
            STARTED: working is not None,
            READY: working is not None and not self.stopping and working.is_ready,
        }


class _Probes(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it ships no types
    def __init__(self, life: Life) -> None:
        self._life = life

    async def Check(  # noqa: N802  # named by the protocol
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        states = health_pb2.HealthCheckResponse
        answer = self._life.answers().get(request.service)
        if answer is None:
            unknown = NotFound("PROBE_UNKNOWN", f"the probes are {LIVE}, {STARTED} and {READY}")
            await context.abort_with_status(rpc_status.to_status(to_status(unknown)))
        return states(status=states.SERVING if answer else states.NOT_SERVING)


@contextlib.asynccontextmanager
async def answering(settings: ProbesSettings | None, life: Life) -> AsyncIterator[None]:
    """Answer while the context lasts, if so configured. Raises SettingsError when it cannot listen."""
    if settings is None:
        yield
        return
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", CHECK_BYTES_MAX),
        ],
        maximum_concurrent_rpcs=CONCURRENT_CHECKS_MAX,
    )
    health_pb2_grpc.add_HealthServicer_to_server(_Probes(life), server)
    try:
        server.add_insecure_port(settings.address)
    except RuntimeError as error:
        raise SettingsError(f"probes.address: cannot listen on {settings.address}") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
