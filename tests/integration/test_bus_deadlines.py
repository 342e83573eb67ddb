"""What a request on the bus says of how long anybody waits for it."""

import time

from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.msg import Msg

from shared.bus import Bus, connected
from support.nats_servers import NatsUnderTest

SUBJECT = "policy.evaluate"
TIMEOUT_S = 20.0


async def test_what_the_asker_no_longer_waits_for_is_not_begun_and_what_was_begun_is_awaited(
    nats_server: NatsUnderTest,
) -> None:
    async with (
        connected(nats_server.bus_settings("service", "broker"), "broker") as broker,
        connected(nats_server.bus_settings("service", "policy"), "policy") as policy,
    ):
        await heard_with_a_deadline(broker, policy)


async def heard_with_a_deadline(broker: Bus, policy: Bus) -> None:
    deadlines_ms: list[int] = []

    async def hear(message: Msg) -> None:
        assert message.headers
        deadlines_ms.append(int(message.headers["Countersign-Deadline"]))
        answer = StringValue(value="late").SerializeToString()
        await policy._client.publish(message.reply, answer)

    await policy._client.subscribe(SUBJECT, queue="policy", cb=hear)
    # Twice: the first question overtakes what is still to be written.
    await policy._client.flush()
    await policy._client.flush()
    for within_s in (2.0, None, TIMEOUT_S * 10):
        before = time.time()
        question = StringValue(value="?")
        answer = await broker.request(SUBJECT, question, StringValue, TIMEOUT_S, within_s)
        assert answer.value == "late"
        latest = (time.time() + min(within_s or TIMEOUT_S, TIMEOUT_S)) * 1000
        assert before * 1000 < deadlines_ms[-1] <= latest
