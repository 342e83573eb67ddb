"""What each call passes at the gRPC door, on a real server with mutual TLS."""

import asyncio
import contextlib
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import (
    BrokerServiceStub,
)
from countersign.type.v1.search_pb2 import Purpose
from shared import rpc
from shared.errors import (
    Broken,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    TooLate,
    Unavailable,
    Unimplemented,
)
from shared.identity import Kind, SpiffeId
from support.doors import (
    LAPD,
    LASD,
    SEARCH,
    SECRET,
    SERVICE,
    TIMEOUT_S,
    TRUST_DOMAIN,
    Channels,
    Pki,
    ServicerThatIsTold,
    check,
    refusal,
    sound,
)
from support.waiting import until

Method = grpc.aio.UnaryUnaryMultiCallable[Any, pb.CheckSearchResponse]


async def test_servicer_knows_the_caller_by_its_certificate(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    await check(lapd)
    assert servicer.callers == [SpiffeId(TRUST_DOMAIN, "agency", LAPD)]


async def test_port_is_written_where_it_is_looked_for(pki: Pki, server: rpc.RunningServer) -> None:
    assert int((pki.folder / "port").read_text()) == server.port


@pytest.mark.parametrize(
    ("kind", "name", "domain"),
    [
        ("agency", LASD, TRUST_DOMAIN),
        ("service", "broker", TRUST_DOMAIN),
        ("operator", LAPD, TRUST_DOMAIN),
        ("connector", "lacris", TRUST_DOMAIN),
        ("agency", LAPD, "countersign.example"),
    ],
)
async def test_caller_whom_the_table_does_not_name_is_refused(
    pki: Pki,
    channels: Channels,
    servicer: ServicerThatIsTold,
    kind: Kind,
    name: str,
    domain: str,
) -> None:
    refused = await refusal(channels(pki.issue(kind, name, domain=domain, file="caller")))
    assert (type(refused), refused.reason) == (NotAllowed, "CALLER_NOT_ALLOWED")
    assert not servicer.callers


async def test_method_that_the_table_does_not_name_is_refused_to_all(
    lapd: grpc.aio.Channel,
) -> None:
    stub = BrokerServiceStub(lapd)
    with pytest.raises(NotAllowed):
        await rpc.call(
            stub.ListSystems, pb.ListSystemsRequest(), name="ListSystems", timeout_s=TIMEOUT_S
        )


async def test_method_that_there_is_not_is_unimplemented(lapd: grpc.aio.Channel) -> None:
    method: Method = lapd.unary_unary(f"/{SERVICE}/DeleteEverything", lambda _: b"")
    with pytest.raises(Unimplemented):
        await rpc.call(method, pb.ListSystemsRequest(), name="x", timeout_s=TIMEOUT_S)


async def test_invalid_fields_are_listed(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    request = sound()
    request.facts.system = "LACRIS; DROP TABLE"
    request.facts.purpose = Purpose.PURPOSE_UNSPECIFIED
    request.facts.candidates_max = 51
    request.officer_token = ""
    refused = await refusal(lapd, request)
    assert (type(refused), refused.reason) == (InvalidRequest, "INVALID_REQUEST")
    assert {violation.field for violation in refused.violations} == {
        "facts.system",
        "facts.purpose",
        "facts.candidates_max",
        "officer_token",
    }
    assert "DROP TABLE" not in str(refused) + str(refused.violations)
    assert not servicer.callers


async def test_violations_are_bounded_so_that_they_fit_the_trailers(
    lapd: grpc.aio.Channel,
) -> None:
    """Every field of the request is wrong at once."""
    request = pb.CheckSearchRequest(officer_token="t" * 9000)
    wrong: Any = request.facts
    for field in wrong.DESCRIPTOR.fields:
        if field.name in ("offence", "expires_after", "circumstances"):
            continue
        is_text = isinstance(getattr(wrong, field.name), str)
        setattr(wrong, field.name, "\N{SNOWMAN}" * 4001 if is_text else 99)
    wrong.offence.nibrs_code = wrong.offence.statute = "x" * 300
    wrong.expires_after.FromSeconds(0)
    refused = await refusal(lapd, request)
    assert refused.reason == "INVALID_REQUEST"
    assert len(refused.violations) >= 14


async def test_bytes_that_are_no_request_are_an_invalid_request(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    method: Method = lapd.unary_unary(f"/{SERVICE}/CheckSearch", lambda _: b"\xff\xff")
    with pytest.raises(InvalidRequest) as caught:
        await rpc.call(method, sound(), name="x", timeout_s=TIMEOUT_S)
    assert caught.value.reason == "REQUEST_UNREADABLE"
    assert not servicer.callers


async def test_oversized_request_does_not_reach_the_servicer(
    pki: Pki, server: rpc.RunningServer, servicer: ServicerThatIsTold
) -> None:
    request = sound()
    request.facts.narrative = "x" * (rpc.MESSAGE_BYTES_MAX + 1)
    options = [("grpc.max_send_message_length", -1)]
    tls = pki.issue("agency", LAPD)
    async with rpc.open_channel(f"127.0.0.1:{server.port}", tls, options) as channel:
        assert isinstance(await refusal(channel, request), Overloaded)
    assert not servicer.callers


async def test_response_at_the_bound_arrives(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.answer_bytes = rpc.MESSAGE_BYTES_MAX
    assert len((await check(lapd)).receipt.leaf) == rpc.MESSAGE_BYTES_MAX


async def test_expected_failure_reaches_the_caller_whole(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.raises = Conflict(
        "SEARCH_ID_TAKEN", "another request", metadata={"recorded": "ab"}, retry_after_s=2
    )
    refused = await refusal(lapd)
    assert (type(refused), refused.reason) == (Conflict, "SEARCH_ID_TAKEN")
    assert (refused.metadata, refused.retry_after_s) == ({"recorded": "ab"}, 2)


@pytest.mark.parametrize(
    "bug", [ValueError(SECRET), KeyError(SECRET), AssertionError(SECRET), TimeoutError(SECRET)]
)
async def test_bug_reaches_the_caller_without_detail(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold, bug: Exception
) -> None:
    servicer.raises = bug
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await BrokerServiceStub(lapd).CheckSearch(sound(), timeout=TIMEOUT_S)
    error = caught.value
    assert error.code().value[0] == code_pb2.INTERNAL
    said = f"{error.details()} {error.trailing_metadata()} {error.debug_error_string()}"
    assert SECRET not in said
    assert type(bug).__name__ not in said
    assert rpc.service_error(error).reason == "INTERNAL"


async def test_error_with_text_that_is_no_unicode_keeps_its_class(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.raises = NotFound("R", "\ud800")
    assert isinstance(await refusal(lapd), NotFound)


async def test_deadline_ends_the_servicers_work(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.go_on.clear()

    async def came_in_time() -> bool:
        with pytest.raises(TooLate):
            await check(lapd, timeout_s=0.5)
        return servicer.entered.is_set()

    await until(came_in_time)
    async with asyncio.timeout(TIMEOUT_S):
        await servicer.left.wait()


async def test_server_that_is_away_is_unavailable(
    pki: Pki, server: rpc.RunningServer, lapd: grpc.aio.Channel
) -> None:
    await check(lapd)
    await server.stop(0)
    refused = await refusal(lapd)
    assert (type(refused), refused.reason) == (Unavailable, "UNREACHABLE")


async def watch(channel: grpc.aio.Channel, search_id: str = SEARCH) -> list[int]:
    stub = BrokerServiceStub(channel)
    responses = rpc.call_stream(
        stub.WatchSearch,
        pb.WatchSearchRequest(search_id=search_id),
        name=f"{SERVICE}/WatchSearch",
        timeout_s=TIMEOUT_S,
    )
    async with contextlib.aclosing(responses):
        return [response.search.state async for response in responses]


async def test_stream_passes_the_door_like_a_call(
    pki: Pki, channels: Channels, lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    assert await watch(lapd) == [pb.SEARCH_STATE_PENDING, pb.SEARCH_STATE_ANSWERED]
    with pytest.raises(InvalidRequest):
        await watch(lapd, "no uuid")
    with pytest.raises(NotAllowed):
        await watch(channels(pki.issue("agency", LASD)))
    servicer.raises = NotFound("SEARCH_UNKNOWN", "there is no such search")
    with pytest.raises(NotFound) as caught:
        await watch(lapd)
    assert caught.value.reason == "SEARCH_UNKNOWN"


async def test_bug_within_a_stream_is_told_without_detail(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.raises = ValueError(SECRET)
    with pytest.raises(Broken) as caught:
        await watch(lapd)
    assert SECRET not in str(caught.value)


async def test_stream_that_the_caller_leaves_ends(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.go_on.clear()
    stub = BrokerServiceStub(lapd)
    responses = rpc.call_stream(
        stub.WatchSearch,
        pb.WatchSearchRequest(search_id=SEARCH),
        name=f"{SERVICE}/WatchSearch",
        timeout_s=TIMEOUT_S,
    )
    async with contextlib.aclosing(responses):
        await anext(responses)
    async with asyncio.timeout(TIMEOUT_S):
        await servicer.left.wait()


async def test_health_and_reflection_answer_any_authentic_caller(
    pki: Pki, channels: Channels, server: rpc.RunningServer
) -> None:
    channel = channels(pki.issue("operator", "probe"))
    health = health_pb2_grpc.HealthStub(channel)
    states = health_pb2.HealthCheckResponse
    for service in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == states.SERVING
    await server.set_serving(SERVICE, False)
    answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert answer.status == states.NOT_SERVING

    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listing]))
    response = await anext(aiter(call))
    call.cancel()
    listed = {service.name for service in response.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= listed


async def test_stopping_server_lets_the_call_in_hand_finish(
    lapd: grpc.aio.Channel, server: rpc.RunningServer, servicer: ServicerThatIsTold
) -> None:
    servicer.go_on.clear()
    in_hand = asyncio.create_task(check(lapd))
    async with asyncio.timeout(TIMEOUT_S):
        await servicer.entered.wait()
    stopping = asyncio.create_task(server.stop(TIMEOUT_S))
    done, _ = await asyncio.wait([stopping], timeout=0.1)
    assert not done
    servicer.go_on.set()
    assert isinstance(await in_hand, pb.CheckSearchResponse)
    await stopping
