"""What a client asks again by itself, at a gRPC server on loopback that fails it at first."""

import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import BrokerServiceStub
from countersign.client.calls import RETRYING, SERVICE, SUBMIT_ATTEMPTS
from countersign.installation.ports import LOOPBACK
from countersign.type.v1.search_pb2 import SealedPayload

DROPPED = grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE
PHOTOGRAPH_BYTES = 2 * 1024 * 1024


class Fails:
    """Ends so many calls with a bare status, as one does that stops; then takes them."""

    def __init__(self, code: grpc.StatusCode, times: int) -> None:
        self._code = code
        self._left = times
        self.asked = 0

    async def submit(
        self,
        request: pb.SubmitSearchRequest,
        context: "grpc.aio.ServicerContext[pb.SubmitSearchRequest, pb.SubmitSearchResponse]",
    ) -> pb.SubmitSearchResponse:
        """Gives back how much arrived, where one looks for it."""
        self.asked += 1
        if self._left:
            self._left -= 1
            await context.abort(self._code)
        size = len(request.sealed_probe.ciphertext)
        return pb.SubmitSearchResponse(search=pb.Search(search_id=str(size)))


@contextlib.asynccontextmanager
async def serving(broker: Fails) -> AsyncIterator[BrokerServiceStub]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    method = grpc.unary_unary_rpc_method_handler(
        broker.submit, pb.SubmitSearchRequest.FromString, pb.SubmitSearchResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {"SubmitSearch": method})]
    )
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}", RETRYING) as channel:
            yield BrokerServiceStub(channel)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("code", DROPPED)
async def test_photograph_is_sent_again_to_a_broker_that_dropped_it(code: grpc.StatusCode) -> None:
    broker = Fails(code, times=1)
    async with serving(broker) as stub:
        request = pb.SubmitSearchRequest(
            sealed_probe=SealedPayload(ciphertext=bytes(PHOTOGRAPH_BYTES))
        )
        answer = await stub.SubmitSearch(request)
    assert answer.search.search_id == str(PHOTOGRAPH_BYTES)
    assert broker.asked == 2


async def test_client_gives_up_in_the_end() -> None:
    broker = Fails(grpc.StatusCode.UNAVAILABLE, times=SUBMIT_ATTEMPTS)
    async with serving(broker) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as given_up:
            await stub.SubmitSearch(pb.SubmitSearchRequest())
    assert given_up.value.code() is grpc.StatusCode.UNAVAILABLE
    assert broker.asked == SUBMIT_ATTEMPTS


async def test_what_was_wrong_is_not_asked_again() -> None:
    broker = Fails(grpc.StatusCode.INVALID_ARGUMENT, times=1)
    async with serving(broker) as stub:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.SubmitSearch(pb.SubmitSearchRequest())
    assert broker.asked == 1
