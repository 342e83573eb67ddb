"""What becomes of each order that the bus delivers.

| the order                                                 | what happens                            |
|-----------------------------------------------------------|-----------------------------------------|
| cannot be read, or is not of the search its subject names | answered ORDER_REJECTED, not kept       |
| bears no good signature                                   | answered ORDER_REJECTED, not kept       |
| was answered before                                       | the same answer is published again      |
| was begun too often, and never came to an answer          | set aside: answered SYSTEM_ERROR, kept  |
| is being worked on                                        | delivered again later                   |
| fails another check                                       | answered with the check's word, kept    |
| verifies                                                  | run, answered, kept, published          |

What is kept is durable before it is published, and the order is acknowledged after that. A kill
at any moment therefore leads to the same answer, or to a run whose candidates nobody has seen.

An answer to an order without a good signature is not kept, or whoever can write to the bus could
spend the answer of a search that is yet to come.

Every order comes to an answer, and with that onto record, also one that ends this process each time or
meets a bug in it: what is delivered again and was not answered is counted before it is run again.
"""

import asyncio
import contextlib
import hashlib
import logging
import sqlite3
import time
from typing import Protocol

from google.protobuf.message import DecodeError

from connector.answering import Answered, AnsweredOrder, Answerer, about_signed
from connector.proof import CHECKS, Expectations, OrderRefused, SignedBytes, read_signed, verify
from connector.runs import Run, RunStore
from connector.telling import told_of
from countersign.connector.v1.connector_pb2 import (
    FailureReason,
    SearchAnswer,
    SearchOrder,
    SignedOrder,
)
from shared import telemetry
from shared.backoff import Backoff
from shared.bus import Delivery, Retry
from shared.clock import Clock
from shared.errors import ServiceError

IN_PROGRESS_EVERY_S = 15.0
"""A quarter of the minute after which the bus takes an order for lost."""

AGAIN = Backoff(first_s=2.0, most_s=15.0)
"""Before an order comes again when bus or disk failed, or while it is being worked on."""

BEGUN_AGAIN_MAX = 4
"""How often an order is begun again that ended this process, or failed in a way that nobody foresaw."""

ANSWERS_TEMPLATE = "answers.{system}.{search}"

log = logging.getLogger(__name__)

_answers = telemetry.meter.create_counter(
    "countersign.connector.answers",
    unit="{answer}",
    description="Answers published, by result: candidates found, or why none",
)
_refusals = telemetry.meter.create_counter(
    "countersign.connector.refusals",
    unit="{order}",
    description="Orders that were not run, by the check that they failed",
)
_run_duration = telemetry.meter.create_histogram(
    "countersign.connector.run.duration",
    unit="s",
    description="Duration of running a verified order, from opening the probe to the signed answer",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)


class Publisher(Protocol):
    """The part of the bus that answers need."""

    async def publish_durable(
        self, subject: str, data: bytes, message_id: str, template: str
    ) -> None:
        """Publishes durably; raises ServiceError."""


class Orders:
    """Handles deliveries of one system's orders."""

    def __init__(
        self,
        expected: Expectations,
        answerer: Answerer,
        runs: RunStore,
        bus: Publisher,
        clock: Clock,
    ) -> None:
        self._expected = expected
        self._answerer = answerer
        self._runs = runs
        self._bus = bus
        self._clock = clock
        self._working: set[str] = set()
        # From 0, so that the very first refusal is a rise that an alert sees.
        for check in CHECKS:
            _refusals.add(0, {"reason": check})

    async def take(self, delivery: Delivery) -> None:
        """Handle one delivery: returns once its answer is published; raises Retry."""
        # By the search that its subject names, whatever is in it: that search waits for an answer.
        search_id = delivery.subject.rpartition(".")[2]
        if search_id in self._working:
            raise Retry(AGAIN.wait_s(delivery.deliveries))
        self._working.add(search_id)
        telling = _InProgress(delivery)
        try:
            await self._publish(search_id, await self._answer(search_id, delivery))
        except (ServiceError, sqlite3.Error) as error:
            log.warning("answer delayed", extra={"fields": {"error": type(error).__name__}})
            raise Retry(AGAIN.wait_s(delivery.deliveries)) from error
        finally:
            telling.stop()
            self._working.discard(search_id)

    def _read(self, search_id: str, data: bytes) -> SignedBytes:
        """The order, its signature verified and nothing else; raises OrderRefused."""
        try:
            unverified = SignedOrder.FromString(data)
            order = SearchOrder.FromString(unverified.order)
        except DecodeError:
            raise OrderRefused("ORDER_MALFORMED") from None
        if not order.search_id:
            raise OrderRefused("ORDER_MALFORMED")
        if order.search_id != search_id:
            raise OrderRefused("ORDER_MISPLACED")
        return read_signed(unverified, self._expected.broker_keys, order)

    async def _answer(self, search_id: str, delivery: Delivery) -> Answered:
        try:
            signed = self._read(search_id, delivery.data)
        except OrderRefused as refused:
            # Without a request digest, which only a verified order could vouch for.
            about = AnsweredOrder(search_id, _digest(delivery.data), b"")
            return self._refuse(about, refused)
        earlier = self._runs.find(search_id)
        if earlier is not None:
            return self._replay(signed, earlier)
        begun_again = delivery.deliveries > 1 and await self._runs.begin_again(
            search_id, self._clock.now()
        )
        if begun_again > BEGUN_AGAIN_MAX:
            answered = self._set_aside(about_signed(signed))
        else:
            answered = await self._run(signed)
        run = Run(
            search_id=search_id,
            request_sha256=signed.request_sha256,
            signed_answer=answered.data,
            answered_at=self._clock.now(),
            ran=told_of(signed, answered),
            answer_sha256=answered.sha256,
        )
        kept = await self._runs.keep(run)
        if kept.answer_sha256 == answered.sha256:
            return answered._replace(data=kept.signed_answer)
        return Answered.read(kept.signed_answer)

    def _replay(self, signed: SignedBytes, earlier: Run) -> Answered:
        """The answer that was given; another request under the same search id gets none."""
        if earlier.request_sha256 != signed.request_sha256:
            refused = OrderRefused("SEARCH_ALREADY_RUN")
            return self._refuse(about_signed(signed), refused)
        log.info("answer published again")
        return Answered.read(earlier.signed_answer)

    async def _run(self, signed: SignedBytes) -> Answered:
        with telemetry.span("connector.verify"):
            try:
                order = verify(signed, self._expected, self._clock.now())
            except OrderRefused as refused:
                return self._refuse(about_signed(signed), refused)
        started = time.perf_counter()
        with telemetry.span("connector.run"):
            answered = await self._answerer.answer(order)
        _run_duration.record(time.perf_counter() - started)
        return answered

    def _refuse(self, about: AnsweredOrder, refused: OrderRefused) -> Answered:
        reason = FailureReason.Name(refused.reason)
        fields = {"reason": reason, "check": refused.check, "search_id": about.search_id}
        log.warning("order refused", extra={"fields": fields})
        _refusals.add(1, {"reason": refused.check})
        return self._answerer.refused(about, refused)

    def _set_aside(self, about: AnsweredOrder) -> Answered:
        fields = {"search_id": about.search_id, "begun_again": BEGUN_AGAIN_MAX}
        log.error("order set aside", extra={"fields": fields})
        return self._answerer.set_aside(about)

    async def _publish(self, search_id: str, answered: Answered) -> None:
        # The id is of the answer, not of the search: a rejected forgery must not make the bus drop
        # the true answer as a duplicate.
        await self._bus.publish_durable(
            f"answers.{self._expected.system}.{search_id}",
            answered.data,
            message_id=f"answer/{search_id}/{answered.sha256.hex()}",
            template=ANSWERS_TEMPLATE,
        )
        if telemetry.switch.on:
            _answers.add(1, {"result": _result(answered.answer)})


def _digest(data: bytes) -> bytes:
    """Of the order in a message; of all of it when there is none to be found in it."""
    with contextlib.suppress(DecodeError):
        data = SignedOrder.FromString(data).order
    return hashlib.sha256(data).digest()


def _result(answer: SearchAnswer) -> str:
    if answer.HasField("found"):
        return "FOUND"
    return FailureReason.Name(answer.failure.reason).removeprefix("FAILURE_REASON_")


class _InProgress:
    """Tells the bus now and then that an order is still being worked on, until stopped."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        # Most orders are done long before, and a timer costs them less than a task.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(IN_PROGRESS_EVERY_S, self._begin)
        self._telling: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """The order is done."""
        self._timer.cancel()
        if self._telling is not None:
            self._telling.cancel()

    def _begin(self) -> None:
        self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        while True:
            try:
                await self._delivery.in_progress()
            except Exception as error:  # noqa: BLE001
                # Without it the order is at worst delivered again, which finds it being worked on.
                fields = {"error": type(error).__name__}
                log.warning("could not say in progress", extra={"fields": fields})
            await asyncio.sleep(IN_PROGRESS_EVERY_S)
