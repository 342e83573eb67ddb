"""What a call is to those who wait for it."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from countersign.broker.v1.broker_pb2 import ListSystemsRequest, ListSystemsResponse
from shared.rpc import call


async def answers_all_the_same(_request: Message, **_options: object) -> ListSystemsResponse:
    """As gRPC does when it is cancelled in the moment in which the answer is there."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return ListSystemsResponse(next_page_token="there")
    raise AssertionError("nobody sets it")


async def fails_all_the_same(_request: Message, **_options: object) -> ListSystemsResponse:
    """Likewise, when it is an error that is there."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()
        ) from None
    raise AssertionError("nobody sets it")


async def answers(_request: Message, **_options: object) -> ListSystemsResponse:
    return ListSystemsResponse(next_page_token="there")


async def called(method: Any = answers_all_the_same) -> ListSystemsResponse:
    return await call(method, ListSystemsRequest(), name="a/B", timeout_s=1)


@pytest.mark.parametrize("method", [answers_all_the_same, fails_all_the_same])
async def test_a_call_that_is_cancelled_as_the_answer_comes_is_cancelled(method: Any) -> None:
    calling = asyncio.create_task(called(method))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_deadline_that_passes_as_the_answer_comes_has_passed() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await called()


async def test_whoever_was_cancelled_may_still_call_to_put_things_in_order() -> None:
    async def stops() -> ListSystemsResponse:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await called(answers)
        raise AssertionError("nobody sets it")

    stopping = asyncio.create_task(stops())
    await asyncio.sleep(0)
    stopping.cancel()
    assert (await stopping).next_page_token == "there"
