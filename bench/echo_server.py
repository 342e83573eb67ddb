"""A bare gRPC echo server: what any gRPC service in Python costs. Prints its port; ends on SIGTERM."""

import asyncio
import signal

import grpc
import uvloop

from countersign.broker.v1.broker_pb2 import SubmitSearchRequest


async def echo(
    request: SubmitSearchRequest, _context: grpc.aio.ServicerContext[object, object]
) -> SubmitSearchRequest:
    """Gives the request back."""
    return request


async def serve() -> None:
    """Serves on a free loopback port."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        echo,
        request_deserializer=SubmitSearchRequest.FromString,
        response_serializer=SubmitSearchRequest.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(serve())
