"""Spans, metrics and logs of calls and messages, over real gRPC and NATS."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.js import api
from opentelemetry.trace import SpanKind, StatusCode

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import BrokerServiceStub
from shared import rpc, telemetry
from shared.bus import Bus, Delivery, Poison, Retry, connected
from shared.errors import NotFound, ServiceError
from support.doors import (
    LAPD,
    LASD,
    SEARCH,
    SERVICE,
    TIMEOUT_S,
    Channels,
    Pki,
    ServicerThatIsTold,
    check,
    refusal,
    sound,
)
from support.drawn_messages import every_field_marked
from support.nats_servers import NatsUnderTest
from support.signals import Signals
from support.waiting import until

CHECK: Final = f"{SERVICE}/CheckSearch"
WATCH: Final = f"{SERVICE}/WatchSearch"
ORDERS: Final = "orders.{system}.{search}"
SECRET: Final = "Jane-Doe-26-0001"
"""Stands for a name, a case number, a narrative."""

log = logging.getLogger("test")


@pytest.fixture
def lapd(pki: Pki, channels: Channels) -> grpc.aio.Channel:
    return channels(pki.issue("agency", LAPD))


@pytest.fixture
async def broker(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    async with connected(nats_server.bus_settings("service", "broker"), "broker") as bus:
        await bus.ensure_stream(
            api.StreamConfig(name="ORDERS_LACRIS", subjects=["orders.lacris.*"])
        )
        await bus.ensure_consumer(
            "ORDERS_LACRIS", api.ConsumerConfig(durable_name="connector", ack_wait=30)
        )
        yield bus


@pytest.fixture
async def policy(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    async with connected(nats_server.bus_settings("service", "policy"), "policy") as bus:
        yield bus


@pytest.fixture
async def connector(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    settings = nats_server.bus_settings("connector", "lacris")
    async with connected(settings, "connector-lacris") as bus:
        yield bus


class ServicerThatSends(ServicerThatIsTold):
    """Asks policy and publishes an order, as the broker does."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus

    async def CheckSearch(  # noqa: N802  # named by the contract
        self, request: pb.CheckSearchRequest, context: rpc.Context
    ) -> pb.CheckSearchResponse:
        """Asks, publishes, answers."""
        log.info("in the servicer")
        await self._bus.request("policy.evaluate", StringValue(value="?"), StringValue, TIMEOUT_S)
        await self._bus.publish_durable("orders.lacris.1", b"order", "1", ORDERS)
        return await super().CheckSearch(request, context)


@pytest.fixture
def servicer(broker: Bus) -> ServicerThatIsTold:
    return ServicerThatSends(broker)  # type: ignore[abstract]  # the others stay unimplemented


@pytest.fixture
async def searched(
    signals: Signals, lapd: grpc.aio.Channel, policy: Bus, connector: Bus
) -> Signals:
    """What is said of one search, from the client to the connector."""

    async def evaluate(request: StringValue) -> StringValue:
        log.info("in policy")
        return request

    async def run(_: Delivery) -> None:
        log.info("in the connector")

    await policy.serve("policy.evaluate", "policy", StringValue, evaluate, 4)
    await connector.consume("ORDERS_LACRIS", "connector", run, 4, ORDERS)
    with telemetry.span("the client's own work"):
        await check(lapd)

    async def processed() -> bool:
        return any(span.name == f"process {ORDERS}" for span in signals.spans)

    assert await until(processed)
    return signals


async def test_search_is_one_trace_from_client_to_connector(searched: Signals) -> None:
    assert len(searched.traces) == 1
    to_servicer = ["the client's own work", CHECK, CHECK]
    assert searched.lineage(searched.named("process policy.evaluate")) == [
        *to_servicer,
        "request policy.evaluate",
        "process policy.evaluate",
    ]
    assert searched.lineage(searched.named(f"process {ORDERS}")) == [
        *to_servicer,
        f"publish {ORDERS}",
        f"process {ORDERS}",
    ]
    kinds = [(span.kind, span.name) for span in searched.spans]
    assert sorted(kinds, key=str) == sorted(
        [
            (SpanKind.INTERNAL, "the client's own work"),
            (SpanKind.CLIENT, CHECK),
            (SpanKind.SERVER, CHECK),
            (SpanKind.CLIENT, "request policy.evaluate"),
            (SpanKind.SERVER, "process policy.evaluate"),
            (SpanKind.PRODUCER, f"publish {ORDERS}"),
            (SpanKind.CONSUMER, f"process {ORDERS}"),
        ],
        key=str,
    )


async def test_spans_bear_the_conventions_attributes_and_no_others(searched: Signals) -> None:
    of_calls = {"rpc.system.name", "rpc.method", "rpc.response.status_code"}
    of_messages = {
        "messaging.system",
        "messaging.destination.template",
        "messaging.operation.name",
        "messaging.operation.type",
    }
    for span in searched.spans:
        wanted = of_calls if span.name == CHECK else of_messages
        if span.kind is SpanKind.CONSUMER:
            wanted = wanted | {"countersign.deliveries"}
        if span.kind is not SpanKind.INTERNAL:
            assert set(span.attributes or {}) == wanted, span.name
        assert span.status.status_code is StatusCode.UNSET
        assert not span.events


async def test_logs_bear_the_trace_that_they_belong_to(searched: Signals) -> None:
    (trace_id,) = searched.traces
    lines = {line["message"]: line for line in searched.lines}
    for message, span in {
        "in policy": searched.named("process policy.evaluate"),
        "in the connector": searched.named(f"process {ORDERS}"),
    }.items():
        assert span.context
        assert lines[message]["trace_id"] == f"{trace_id:032x}"
        assert lines[message]["span_id"] == f"{span.context.span_id:016x}"
    assert lines["in the servicer"]["trace_id"] == f"{trace_id:032x}"


async def test_calls_and_messages_are_measured(searched: Signals) -> None:
    points = searched.points()
    said = {
        name: sorted((dict(point.attributes) for point in points[name]), key=str)
        for name in points
        if name.startswith(("rpc.", "messaging.", "countersign.queue"))
    }
    of_message = {"messaging.system": "nats"}
    assert said == {
        "rpc.server.call.duration": [
            {
                "rpc.system.name": "grpc",
                "rpc.method": CHECK,
                "rpc.response.status_code": "OK",
            }
        ],
        "messaging.client.operation.duration": [
            of_message
            | {
                "messaging.destination.template": ORDERS,
                "messaging.operation.name": "publish",
            },
            of_message
            | {
                "messaging.destination.template": "policy.evaluate",
                "messaging.operation.name": "request",
            },
        ],
        "messaging.process.duration": [
            of_message | {"messaging.destination.template": ORDERS},
            of_message | {"messaging.destination.template": "policy.evaluate"},
        ],
        "countersign.queue.age": [{"messaging.destination.template": ORDERS}],
    }
    for name in said:
        assert all(point.count == 1 and 0 <= point.sum < TIMEOUT_S for point in points[name])


async def test_stream_is_one_span_on_each_side(signals: Signals, lapd: grpc.aio.Channel) -> None:
    async def watch() -> AsyncIterator[pb.WatchSearchResponse]:
        return rpc.call_stream(
            BrokerServiceStub(lapd).WatchSearch,
            pb.WatchSearchRequest(search_id=SEARCH),
            name=WATCH,
            timeout_s=TIMEOUT_S,
        )

    with telemetry.span("the client's own work"):
        async for _ in await watch():
            with telemetry.span("between two responses"):
                pass

    async def both() -> bool:
        return len([span for span in signals.spans if span.name == WATCH]) == 2

    assert await until(both)
    served = next(s for s in signals.spans if s.name == WATCH and s.kind is SpanKind.SERVER)
    assert signals.lineage(served) == ["the client's own work", WATCH, WATCH]
    between = [span for span in signals.spans if span.name == "between two responses"]
    assert [signals.lineage(span)[:-1] for span in between] == 2 * [["the client's own work"]]


async def test_stream_that_is_left_ends_its_spans_and_disturbs_no_other(
    signals: Signals, lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
) -> None:
    servicer.go_on.clear()
    responses = rpc.call_stream(
        BrokerServiceStub(lapd).WatchSearch,
        pb.WatchSearchRequest(search_id=SEARCH),
        name=WATCH,
        timeout_s=TIMEOUT_S,
    )
    async with contextlib.aclosing(responses):
        await anext(responses)

    async def both() -> bool:
        return len([span for span in signals.spans if span.name == WATCH]) == 2

    assert await until(both)
    served = next(s for s in signals.spans if s.name == WATCH and s.kind is SpanKind.SERVER)
    assert (served.attributes or {})["rpc.response.status_code"] == "CANCELLED"
    assert not [line for line in signals.lines if line["logger"].startswith("opentelemetry")]


class TestFailures:
    """What a failed span says: a stable reason or a type, and never a text."""

    @pytest.fixture
    def servicer(self) -> ServicerThatIsTold:
        return ServicerThatIsTold()  # type: ignore[abstract]  # the others stay unimplemented

    async def test_expected_failure_is_no_fault_of_the_server(
        self, signals: Signals, lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
    ) -> None:
        servicer.raises = NotFound("SEARCH_UNKNOWN", "there is no such search")
        await refusal(lapd)
        client, served = [span for span in signals.spans if span.name == CHECK]
        for span in (client, served):
            assert (span.attributes or {})["error.type"] == "SEARCH_UNKNOWN"
            assert (span.attributes or {})["rpc.response.status_code"] == "NOT_FOUND"
        assert served.status.status_code is StatusCode.UNSET
        assert client.status.status_code is StatusCode.ERROR
        (point,) = signals.points()["rpc.server.call.duration"]
        assert point.attributes["rpc.response.status_code"] == "NOT_FOUND"

    async def test_caller_who_is_turned_away_is_measured_too(
        self, signals: Signals, pki: Pki, channels: Channels
    ) -> None:
        await refusal(channels(pki.issue("agency", LASD)))
        (point,) = signals.points()["rpc.server.call.duration"]
        assert point.attributes["rpc.response.status_code"] == "PERMISSION_DENIED"

    async def test_bug_is_the_servers_fault(
        self, signals: Signals, lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
    ) -> None:
        servicer.raises = ValueError(SECRET)
        await refusal(lapd)
        _, served = [span for span in signals.spans if span.name == CHECK]
        assert served.status.status_code is StatusCode.ERROR
        assert (served.attributes or {})["error.type"] == "ValueError"
        (line,) = [line for line in signals.lines if line["message"] == "call failed"]
        assert (line["method"], line["exception"]) == (f"/{CHECK}", "ValueError")

    async def test_nothing_sensitive_leaves_in_any_signal_of_a_call(
        self, signals: Signals, lapd: grpc.aio.Channel, servicer: ServicerThatIsTold
    ) -> None:
        request = sound()
        request.officer_token = request.facts.narrative = request.facts.case_number = SECRET
        await check(lapd, request)
        for marked in every_field_marked(sound(), SECRET):
            # Some are taken, most are refused at the door: nothing may be said of either.
            with contextlib.suppress(ServiceError):
                await check(lapd, marked)
        for error in (
            ValueError(SECRET),
            NotFound("SEARCH_UNKNOWN", SECRET, metadata={"what": SECRET}),
        ):
            servicer.raises = error
            await refusal(lapd)
        headers = (("baggage", f"case={SECRET}"), ("tracestate", "x=1"), ("x-case", SECRET))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await BrokerServiceStub(lapd).CheckSearch(sound(), metadata=headers)
        assert signals.spans
        assert signals.lines
        assert SECRET not in signals.everything()

    async def test_nothing_sensitive_leaves_in_any_signal_of_a_message(
        self, signals: Signals, broker: Bus, policy: Bus, connector: Bus
    ) -> None:
        bugs: list[Exception] = [KeyError(SECRET), NotFound("ENTRY_UNKNOWN", SECRET)]

        async def breaks(_: StringValue) -> StringValue:
            raise bugs.pop()

        await policy.serve("policy.evaluate", "policy", StringValue, breaks, 4)
        while bugs:
            with pytest.raises(ServiceError):
                await broker.request(
                    "policy.evaluate", StringValue(value=SECRET), StringValue, TIMEOUT_S
                )

        async def run(delivery: Delivery) -> None:
            match delivery.deliveries:
                case 1:
                    raise Retry(0.01) from ValueError(SECRET)
                case 2:
                    raise ValueError(SECRET)
                case _:
                    raise Poison from ValueError(SECRET)

        await connector.consume("ORDERS_LACRIS", "connector", run, 4, ORDERS)
        await broker.publish_durable(f"orders.lacris.{SECRET}", SECRET.encode(), SECRET, ORDERS)
        name = f"process {ORDERS}"

        async def all_three() -> bool:
            return len([span for span in signals.spans if span.name == name]) == 3

        assert await until(all_three)
        spans = [span for span in signals.spans if span.name == name]
        assert [_said(span) for span in spans] == [
            (1, StatusCode.UNSET, None, ["retry"]),
            (2, StatusCode.ERROR, "ValueError", []),
            (3, StatusCode.ERROR, "Poison", ["set aside"]),
        ]
        points = signals.points()
        assert SECRET not in signals.everything() + str(points)
        # Rate, errors and duration of each subject: a failure is told from a success, and by its reason.
        assert _failures(points["messaging.client.operation.duration"]) == {
            ("policy.evaluate", "ENTRY_UNKNOWN"),
            ("policy.evaluate", "INTERNAL"),
            (ORDERS, None),
        }
        assert _failures(points["messaging.process.duration"]) == {
            ("policy.evaluate", "ENTRY_UNKNOWN"),
            ("policy.evaluate", "KeyError"),
            (ORDERS, "Retry"),
            (ORDERS, "ValueError"),
            (ORDERS, "Poison"),
        }


def _failures(points: list[Any]) -> set[tuple[str, str | None]]:
    return {
        (one.attributes["messaging.destination.template"], one.attributes.get("error.type"))
        for one in points
    }


def _said(span: Any) -> tuple[object, ...]:
    attributes = span.attributes
    return (
        attributes["countersign.deliveries"],
        span.status.status_code,
        attributes.get("error.type"),
        [event.name for event in span.events],
    )
