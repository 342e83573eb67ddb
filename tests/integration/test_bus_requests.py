"""Request and reply over a real NATS server, with TLS and permissions as in production."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from shared.bus import Bus, connected
from shared.errors import (
    Broken,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServiceError,
    TooLate,
    Unavailable,
)
from shared.settings import BusSettings
from support.buses_that_hang_up import ServerThatHangsUp
from support.nats_servers import Certificates, NatsUnderTest
from support.waiting import until

SUBJECT = "policy.evaluate"
SECRET = "the narrative of a case"
TIMEOUT_S = 20.0


@pytest.fixture
async def broker(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    async with connected(nats_server.bus_settings("service", "broker"), "broker") as bus:
        yield bus


@pytest.fixture
async def policy(nats_server: NatsUnderTest) -> AsyncIterator[Bus]:
    async with connected(nats_server.bus_settings("service", "policy"), "policy") as bus:
        yield bus


async def ask(bus: Bus, text: str = "?", timeout_s: float = TIMEOUT_S) -> str:
    answer = await bus.request(SUBJECT, StringValue(value=text), StringValue, timeout_s)
    return answer.value


async def refusal(bus: Bus, timeout_s: float = TIMEOUT_S) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await ask(bus, timeout_s=timeout_s)
    return caught.value


async def shout(request: StringValue) -> StringValue:
    return StringValue(value=request.value.upper())


async def serve_failing(policy: Bus, error: Exception) -> None:
    async def fails(_: StringValue) -> StringValue:
        raise error

    await policy.serve(SUBJECT, "policy", StringValue, fails, 4)


async def test_request_is_answered(broker: Bus, policy: Bus) -> None:
    await policy.serve(SUBJECT, "policy", StringValue, shout, 4)
    assert await ask(broker, "may they?") == "MAY THEY?"


async def test_two_of_a_queue_share_the_work(
    nats_server: NatsUnderTest, broker: Bus, policy: Bus
) -> None:
    served: list[str] = []

    async def serve(bus: Bus, name: str) -> None:
        async def answer(request: StringValue) -> StringValue:
            served.append(name)
            return request

        await bus.serve(SUBJECT, "policy", StringValue, answer, 40)

    async with connected(nats_server.bus_settings("service", "policy"), "policy") as second:
        await serve(policy, "first")
        await serve(second, "second")
        await asyncio.gather(*(ask(broker) for _ in range(40)))
    assert len(served) == 40
    assert set(served) == {"first", "second"}


async def test_expected_failure_comes_back_whole(broker: Bus, policy: Bus) -> None:
    error = NotFound("ENTRY_UNKNOWN", "there is no entry 7", metadata={"size": "5"})
    await serve_failing(policy, error)
    refused = await refusal(broker)
    assert (type(refused), refused.reason) == (NotFound, "ENTRY_UNKNOWN")
    assert (refused.message, refused.metadata) == ("there is no entry 7", {"size": "5"})


@pytest.mark.parametrize("bug", [ValueError(SECRET), KeyError(SECRET), TimeoutError(SECRET)])
async def test_bug_comes_back_without_detail(broker: Bus, policy: Bus, bug: Exception) -> None:
    await serve_failing(policy, bug)
    refused = await refusal(broker)
    assert (type(refused), refused.reason, refused.message) == (
        Broken,
        "INTERNAL",
        "internal error",
    )


async def test_bytes_that_are_no_request_are_refused(broker: Bus, policy: Bus) -> None:
    await policy.serve(SUBJECT, "policy", StringValue, shout, 4)
    with pytest.raises(InvalidRequest):
        await broker.request(SUBJECT, BytesValue(value=b"\xff\xff"), StringValue, TIMEOUT_S)


async def test_bytes_that_are_no_answer_are_the_others_fault(broker: Bus, policy: Bus) -> None:
    async def answer(_: StringValue) -> BytesValue:
        return BytesValue(value=b"\xff\xff")

    await policy.serve(SUBJECT, "policy", StringValue, answer, 4)
    refused = await refusal(broker)
    assert (type(refused), refused.reason) == (Broken, "REPLY_UNREADABLE")


async def test_answer_beyond_the_bound_is_told_and_not_waited_for(broker: Bus, policy: Bus) -> None:
    async def answer(_: StringValue) -> StringValue:
        return StringValue(value="x" * 5_000_000)

    await policy.serve(SUBJECT, "policy", StringValue, answer, 4)
    refused = await refusal(broker)
    assert (type(refused), refused.reason) == (Broken, "REPLY_TOO_LARGE")


async def test_nobody_there_is_known_at_once(broker: Bus) -> None:
    refused = await refusal(broker, timeout_s=3600)
    assert (type(refused), refused.reason) == (Unavailable, "SERVICE_UNAVAILABLE")
    assert refused.message == f"no answer on {SUBJECT}: nobody serves it now"
    assert refused.retry_after_s is not None


async def test_subject_that_the_bus_forbids_is_logged_as_an_error(
    policy: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(await refusal(policy, timeout_s=0.3), Unavailable)

    async def logged() -> bool:
        errors = [record for record in caplog.records if record.levelname == "ERROR"]
        return any("forbids" in record.getMessage() for record in errors)

    assert await until(logged)


async def test_silence_is_unavailable_in_the_end(broker: Bus, policy: Bus) -> None:
    never = asyncio.Event()

    async def holds(request: StringValue) -> StringValue:
        await never.wait()
        return request

    await policy.serve(SUBJECT, "policy", StringValue, holds, 4)
    assert isinstance(await refusal(broker, timeout_s=0.3), Unavailable)
    never.set()


@pytest.mark.parametrize(
    ("deadline", "refused"),
    [("1000", TooLate), ("0", TooLate), ("soon", InvalidRequest), (None, InvalidRequest)],
)
async def test_request_that_comes_too_late_or_says_no_deadline_is_not_carried_out(
    broker: Bus, policy: Bus, deadline: str | None, refused: type[ServiceError]
) -> None:
    carried_out: list[str] = []

    async def notes(request: StringValue) -> StringValue:
        carried_out.append(request.value)
        return request

    await policy.serve(SUBJECT, "policy", StringValue, notes, 4)
    headers = {"Other": "x"} if deadline is None else {"Countersign-Deadline": deadline}
    reply = await broker._client.request(
        SUBJECT, StringValue(value="late").SerializeToString(), TIMEOUT_S, headers=headers
    )
    assert reply.headers
    assert int(reply.headers["Nats-Service-Error-Code"]) == refused.status.value[0]
    assert not carried_out


async def test_request_beyond_the_bound_is_refused_at_once(broker: Bus, policy: Bus) -> None:
    go_on, entered = asyncio.Event(), asyncio.Semaphore(0)

    async def holds(request: StringValue) -> StringValue:
        entered.release()
        await go_on.wait()
        return request

    await policy.serve(SUBJECT, "policy", StringValue, holds, 2)
    held = [asyncio.create_task(ask(broker, "held")) for _ in range(2)]
    async with asyncio.timeout(TIMEOUT_S):
        for _ in held:
            await entered.acquire()
    refused = await refusal(broker)
    assert (type(refused), refused.reason) == (Overloaded, "SERVICE_BUSY")
    go_on.set()
    assert await asyncio.gather(*held) == ["held", "held"]
    assert await ask(broker, "again") == "again"


async def test_nothing_is_sent_late_after_a_disconnect(
    nats_server: NatsUnderTest, broker: Bus, policy: Bus
) -> None:
    heard: list[str] = []

    async def notes(request: StringValue) -> StringValue:
        heard.append(request.value)
        return request

    await policy.serve(SUBJECT, "policy", StringValue, notes, 4)
    nats_server.kill()

    async def cut_off() -> bool:
        return not broker.is_connected

    assert await until(cut_off)
    for _ in range(20):
        assert isinstance(await refusal(broker), Unavailable)
    nats_server.start()
    assert await until(lambda: _answered(broker)) == "now"
    assert set(heard) == {"now"}


async def _answered(bus: Bus) -> str | None:
    try:
        return await ask(bus, "now", timeout_s=1)
    except Unavailable:
        return None


async def test_process_may_start_before_the_bus(nats_server: NatsUnderTest) -> None:
    nats_server.kill()
    settings = nats_server.bus_settings("service", "broker")
    connecting = asyncio.create_task(Bus.connect(settings, "broker"))
    done, _ = await asyncio.wait([connecting], timeout=0.2)
    assert not done
    nats_server.start()
    bus = await connecting
    assert bus.is_connected
    await bus.close()


@pytest.mark.parametrize("steps", range(1, 4))
async def test_bus_closed_while_it_reconnects_stops_reconnecting(
    tmp_path: Path, steps: int
) -> None:
    """At some steps `asyncio.wait_for` swallows the cancellation (Python before 3.12)."""
    certificates = Certificates(tmp_path)
    server = ServerThatHangsUp(certificates.tls("service", "nats", listens=True))
    before = asyncio.all_tasks()
    async with server.listening() as port:
        own = certificates.tls("service", "broker")
        bus = await Bus.connect(BusSettings(servers=(f"tls://127.0.0.1:{port}",), tls=own), "x")
        server.hang_up.set()

        async with asyncio.timeout(TIMEOUT_S):
            await server.second.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        await bus.close()
    left = [task for task in asyncio.all_tasks() - before if "reconnect" in repr(task.get_coro())]
    for task in left:  # else the test's own end would hang
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
    assert not left


async def test_closed_is_told_so_that_the_process_can_end(nats_server: NatsUnderTest) -> None:
    bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    assert not bus.closed.is_set()
    await bus.close()
    assert bus.closed.is_set()
    assert not bus.is_connected
    assert isinstance(await refusal(bus), Unavailable)


async def test_client_that_the_server_turns_away_for_good_is_told(tmp_path: Path) -> None:
    """nats-py then closes for good, whatever it was told of reconnecting."""
    certificates = Certificates(tmp_path)
    server = ServerThatHangsUp(certificates.tls("service", "nats", listens=True))
    server.last_words = b"-ERR 'User Authentication Expired'\r\n"
    async with server.listening() as port:
        own = certificates.tls("service", "broker")
        bus = await Bus.connect(BusSettings(servers=(f"tls://127.0.0.1:{port}",), tls=own), "x")
        assert not bus.closed.is_set()
        server.hang_up.set()
        async with asyncio.timeout(TIMEOUT_S):
            await bus.closed.wait()
        await bus.close()


async def test_work_in_hand_is_finished_before_closing(broker: Bus, policy: Bus) -> None:
    go_on, entered = asyncio.Event(), asyncio.Event()

    async def holds(request: StringValue) -> StringValue:
        entered.set()
        await go_on.wait()
        return request

    await policy.serve(SUBJECT, "policy", StringValue, holds, 2)
    held = asyncio.create_task(ask(broker, "held"))
    async with asyncio.timeout(TIMEOUT_S):
        await entered.wait()
    closing = asyncio.create_task(policy.close())
    go_on.set()
    assert await held == "held"
    await closing


def test_errors_of_the_bus_have_one_root() -> None:
    """`except nats.errors.Error` is all that stands between them and our callers."""
    kinds = [kind for kind in vars(nats.errors).values() if isinstance(kind, type)]
    kinds += [kind for kind in vars(nats.js.errors).values() if isinstance(kind, type)]
    errors = [kind for kind in kinds if issubclass(kind, Exception)]
    assert [e for e in errors if not issubclass(e, nats.errors.Error | TimeoutError)] == []
