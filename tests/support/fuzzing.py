"""Sends a door or a subject whatever can be drawn from its contract, and looks at what it says to that."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import Default
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import DOMAIN
from support.drawn_messages import wire

EXAMPLES: Final = 12
"""For each method and subject. More find the same: the door reads every message by the same rules."""
TIMEOUT_S: Final = 30.0
WATCH_S: Final = 2.0
"""A stream of what does not come says nothing until its deadline."""
LIBRARYS: Final = ("grpc.health.", "grpc.reflection.")
FORBIDDEN: Final = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED,
}


async def attack(
    kind: Descriptor,
    send: Callable[[bytes], Awaitable[None]],
    drawn: st.SearchStrategy[bytes] | None = None,
) -> None:
    """Sends whatever is drawn; a failure is shrunk to the smallest that fails."""
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=wire(kind) if drawn is None else drawn)
    def each(data: bytes) -> None:
        async def sent() -> None:
            await send(data)

        asyncio.run_coroutine_threadsafe(sent(), loop).result(TIMEOUT_S * 2)

    await asyncio.to_thread(each)


async def methods_of(channel: grpc.aio.Channel) -> list[MethodDescriptor]:
    """All that a door serves, by what it says of itself."""
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([listing]))
    response = await anext(aiter(call))
    call.cancel()
    names = [one.name for one in response.list_services_response.service]
    ours = [name for name in names if not name.startswith(LIBRARYS)]
    services = [Default().FindServiceByName(name) for name in ours]
    return list(itertools.chain.from_iterable(service.methods for service in services))


def checked(error: grpc.aio.AioRpcError, method: str, seen: Counter[str]) -> None:
    """A refusal is typed and says nothing of our insides."""
    seen[error.code().name] += 1
    assert error.code() not in FORBIDDEN, (method, error.details())
    assert "Traceback" not in (error.details() or "")
    status = rpc_status.from_call(error)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return
    assert status is not None, (method, error.code())
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), (method, error.code())
    assert info.domain == DOMAIN
    assert info.reason.isupper()


def caller_of(
    channel: grpc.aio.Channel, method: MethodDescriptor, seen: Counter[str]
) -> Callable[[bytes], Awaitable[None]]:
    name = f"/{method.containing_service.full_name}/{method.name}"
    unary: Any = channel.unary_unary(name)
    stream: Any = channel.unary_stream(name)

    async def send(data: bytes) -> None:
        try:
            if method.server_streaming:
                call = stream(data, timeout=WATCH_S)
                async for _ in call:
                    break
                call.cancel()
            else:
                await unary(data, timeout=TIMEOUT_S)
            seen["OK"] += 1
        except grpc.aio.AioRpcError as error:
            checked(error, name, seen)

    return send
