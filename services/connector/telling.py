"""What the ledger is told of an order that was answered."""

import hashlib
import re
from datetime import UTC
from typing import Final

from google.protobuf.message import DecodeError

from connector.proof import SignedBytes
from connector.report_store import Ran
from countersign.connector.v1 import connector_pb2 as pb
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1.entry_pb2 import Entry

_SEARCH_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REFUSALS: Final = frozenset(
    {
        FailureReason.FAILURE_REASON_ORDER_REJECTED,
        FailureReason.FAILURE_REASON_ORDER_EXPIRED,
        FailureReason.FAILURE_REASON_NOT_PERMITTED_HERE,
    }
)


def told_of(signed: SignedBytes, answer: pb.SignedAnswer) -> Ran | None:
    """What is told of the answer to an order; None where there is nothing that a ledger could look for."""
    order = signed.order
    made = pb.SearchAnswer.FromString(answer.answer)
    day = _decided_on(order)
    # Of what was run both are sound; of what was refused they are whatever the order said.
    if day is None or _SEARCH_ID.fullmatch(order.search_id) is None:
        return None
    run = pb.Run(
        search_id=order.search_id,
        order_sha256=signed.order_sha256,
        request_sha256=signed.request_sha256,
        answer_sha256=hashlib.sha256(answer.answer).digest(),
        result=_result(made),
        answered_at=made.answered_at,
    )
    return Ran(day, run.SerializeToString(deterministic=True))


def _result(made: pb.SearchAnswer) -> pb.RunResult.ValueType:
    if made.HasField("found"):
        return pb.RUN_RESULT_FOUND
    return pb.RUN_RESULT_REFUSED if made.failure.reason in _REFUSALS else pb.RUN_RESULT_FAILED


def _decided_on(order: pb.SearchOrder) -> str | None:
    """The UTC day of the decision, as its entry says."""
    try:
        recorded_at = Entry.FromString(order.decision_receipt.leaf).recorded_at
        return recorded_at.ToDatetime(tzinfo=UTC).date().isoformat()
    except (DecodeError, ValueError, OverflowError):
        return None
