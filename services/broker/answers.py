"""Answers from connectors: verified, recorded, and only then released."""

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from broker.ledger import Ledger
from broker.record import Record, answered_entry, rejected_entry
from broker.streams import ANSWERS_OF_A_SEARCH_MAX, ANSWERS_STREAM, answer_subject
from broker.watch import KnownSearches
from countersign.connector.v1.connector_pb2 import SearchAnswer, SignedAnswer
from countersign.ledger.v1.entry_pb2 import RequestRejected
from shared.backoff import Backoff, PutOff
from shared.bus import Bus, Delivery, Forbidden, Poison, Retry
from shared.errors import ServiceError, Unavailable
from shared.identity import SpiffeId
from shared.registry import TrustRoots
from shared.rejections import Rejections
from shared.signing import BadSignature, VerifyKey
from shared.together import verify_answer

log = logging.getLogger(__name__)

AGAIN: Final = Backoff(first_s=1.0, most_s=10.0)
"""Before an answer comes again that could not be recorded."""
REMOVING_AGAIN: Final = Backoff(first_s=60.0, most_s=600.0)
"""Before a bus is asked anew that did not let us: until it is configured anew, it will not."""
REMOVING_MAX: Final = 8
"""After so many deliveries a message that cannot be taken off is left, and goes with its age."""
OUTDATED_BUS: Final = (
    "the bus does not let the broker take one message off the stream of answers, which a connector can fill:"
    " write the bus's configuration anew, with this release, and have the bus read it (docs/upgrading.md)"
)
_PLAIN: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""What an id looks like that is asked for by its name. A connector may publish under any bytes."""


class AnswerRefused(Exception):
    """The answer does not verify; the message is a stable reason."""


def verified_answer(signed: SignedAnswer, record: Record, verify_key: VerifyKey) -> SearchAnswer:
    """The answer, if it is the connector's to this search. Raises AnswerRefused."""
    try:
        verify_answer(verify_key, signed)
    except BadSignature:
        raise AnswerRefused("ANSWER_SIGNATURE") from None
    try:
        answer = SearchAnswer.FromString(signed.answer)
    except DecodeError:
        raise AnswerRefused("ANSWER_UNREADABLE") from None
    if answer.search_id != record.search_id or answer.system != record.system:
        raise AnswerRefused("ANSWER_MISMATCH")
    if answer.WhichOneof("result") is None:
        raise AnswerRefused("ANSWER_EMPTY")
    rejected = answer.HasField("failure") and not answer.request_sha256
    # A connector that could not read the order has no digest to bind to; a list always has one.
    if not rejected and answer.request_sha256 != record.decision.request_sha256:
        raise AnswerRefused("ANSWER_MISMATCH")
    return answer


class Answers:
    """Takes answers in and gives them out."""

    def __init__(
        self,
        *,
        bus: Bus,
        ledger: Ledger,
        known: KnownSearches,
        trust: TrustRoots,
        trust_domain: str,
        rejections: Rejections,
    ) -> None:
        self._bus = bus
        self._removing = PutOff(REMOVING_AGAIN)
        self._rejections = rejections
        self._trust_domain = trust_domain
        self._ledger = ledger
        self._known = known
        self._keys = {
            system: VerifyKey(keys.answer_verify_key) for system, keys in trust.systems.items()
        }

    async def take_in(self, delivery: Delivery) -> None:
        """Handles one delivery. A crash after the append and before the return delivers again."""
        try:
            await self._take_in(delivery)
        except ServiceError as error:
            raise Retry(AGAIN.wait_s(delivery.deliveries)) from error

    async def _take_in(self, delivery: Delivery) -> None:
        # The bus has it that the first two are ours; what a connector writes after them may be anything.
        system, _, search_id = delivery.subject.removeprefix("answers.").partition(".")
        if _PLAIN.fullmatch(search_id) is None:
            await self._set_aside(system, "", "ANSWER_TO_NO_SEARCH", spent=False)
            await self._remove(delivery)
            return
        record = self._known.get(search_id) or await self._ledger.look_up(search_id)
        if record is None or not record.permitted:
            await self._set_aside(system, search_id, "ANSWER_TO_NO_SEARCH", spent=False)
            await self._remove(delivery, search_id)
            return
        if system != record.system:
            await self._set_aside(system, search_id, "ANSWER_SIGNATURE", spent=True)
            await self._remove(delivery, search_id)
            return
        if record.ended is not None:
            # Delivered again after it was recorded, or too late: the end on record stands.
            self._known.put(record)
            if not await self._is_kept(delivery, record):
                await self._remove(delivery)
            return
        key = self._keys.get(system)
        try:
            if key is None:
                raise AnswerRefused("ANSWER_SIGNATURE")
            signed = SignedAnswer.FromString(delivery.data)
            answer = verified_answer(signed, record, key)
        except (AnswerRefused, DecodeError) as refused:
            reason = str(refused) if isinstance(refused, AnswerRefused) else "ANSWER_UNREADABLE"
            await self._set_aside(system, search_id, reason, spent=True)
            await self._remove(delivery)
            raise Poison from refused
        digest = hashlib.sha256(signed.answer).digest()
        ended = await self._ledger.end(record, answered_entry(record, answer, digest))
        # Only now, when the end is durable, may anyone see the answer.
        if ended.answer_sha256 == digest:
            self._known.put_answer(search_id, signed)
        self._known.put(ended)
        if ended.answer_sha256 != digest:
            await self._remove(delivery)

    async def _is_kept(self, delivery: Delivery, record: Record) -> bool:
        """Whether it is what the recorded answer is given out from: the first of its copies."""
        if _digest(delivery.data) != record.answer_sha256:
            return False
        first = await self._bus.first_messages(ANSWERS_STREAM, delivery.subject, 1)
        # Only the first may vouch that another is not needed: two brokers may look at two copies.
        return not any(
            one.sequence != delivery.sequence and _digest(one.data) == record.answer_sha256
            for one in first
        )

    async def _set_aside(self, system: str, search_id: str, reason: str, spent: bool) -> None:
        # The bus lets a connector publish under its own system's name only.
        connector = SpiffeId(self._trust_domain, "connector", system)
        event = RequestRejected(rpc="answers", caller=str(connector), reason=reason)
        # Past what a connector may have on record, its answers are set aside all the same.
        wait_s = await self._rejections.record(
            event, lambda event: self._ledger.append(rejected_entry(event, search_id, spent))
        )
        if not wait_s:
            # A line for each entry: whoever cannot fill the ledger cannot fill the disk of logs either.
            without = event.unrecorded_before
            fields = {"system": system, "reason": reason, "unrecorded_before": without}
            log.error("answer refused", extra={"fields": fields})

    async def _remove(self, delivery: Delivery, search_id: str = "") -> None:
        """Takes off the bus what is not the answer on record: the stream is every system's, and has a bound.

        By its number, since it may stand under no name, or under that of an answer which is to stay;
        `search_id` is given where neither is so.
        """
        try:
            if self._removing.is_due(ANSWERS_STREAM):
                with self._forbidden():
                    await self._bus.delete(ANSWERS_STREAM, delivery.sequence)
                    self._removing.succeeded(ANSWERS_STREAM)
                    return
            if search_id:
                # A bus that was configured by 0.1 lets a broker take off all under one name.
                await self._bus.purge(ANSWERS_STREAM, delivery.subject)
        except Unavailable:
            if delivery.deliveries < REMOVING_MAX:
                raise
            log.warning("what is nobody's answer stays on the bus")

    @contextlib.contextmanager
    def _forbidden(self) -> Iterator[None]:
        """Tells of a bus that was configured by another release, and lets it be for a while."""
        try:
            yield
        except Forbidden:
            if self._removing.is_due(ANSWERS_STREAM):
                log.warning(OUTDATED_BUS)
            self._removing.failed(ANSWERS_STREAM)

    async def try_removing(self) -> None:
        """Has whoever starts a broker hear of such a bus, before somebody fills it."""
        # One that does not answer now may do so when there is something to take off.
        with contextlib.suppress(Unavailable), self._forbidden():
            await self._bus.may_delete(ANSWERS_STREAM)

    async def give_out(self, record: Record) -> SignedAnswer | None:
        """The recorded answer, if it is still held: exactly the one whose digest is on record."""
        if not record.answer_sha256:
            return None
        at_hand = self._known.answer(record.search_id)
        if at_hand is not None:
            return at_hand
        subject = answer_subject(record.system, record.search_id)
        last = await self._bus.last_message(ANSWERS_STREAM, subject)
        signed = _recorded_one([] if last is None else [last], record)
        if signed is None and last is not None:
            # An answer came after the one that was recorded, as of a connector that had lost its record.
            log.warning("the last answer is not the recorded one")
            held = await self._bus.first_messages(ANSWERS_STREAM, subject, ANSWERS_OF_A_SEARCH_MAX)
            signed = _recorded_one([one.data for one in held], record)
        if signed is not None:
            self._known.put_answer(record.search_id, signed)
        return signed


def _digest(data: bytes) -> bytes | None:
    """Of the answer in a message; None where there is none."""
    try:
        return hashlib.sha256(SignedAnswer.FromString(data).answer).digest()
    except DecodeError:
        return None


def _recorded_one(held: Sequence[bytes], record: Record) -> SignedAnswer | None:
    """That of these messages whose answer's digest is on record."""
    for data in held:
        if _digest(data) == record.answer_sha256:
            return SignedAnswer.FromString(data)
    return None
