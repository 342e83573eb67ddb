"""What the ledger is told of an order that was answered."""

import functools
import re
from datetime import date, timedelta
from typing import Final

from connector.answering import Answered
from connector.proof import SignedBytes, microseconds_of
from connector.report_store import Ran
from countersign.connector.v1 import connector_pb2 as pb
from countersign.connector.v1.connector_pb2 import FailureReason

DAYS_AT_HAND: Final = 16
"""Orders are of today and, round midnight, of yesterday."""

_EPOCH: Final = date(1970, 1, 1)
_DAY: Final = 24 * 60 * 60 * 1_000_000

_SEARCH_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REFUSALS: Final = frozenset(
    {
        FailureReason.FAILURE_REASON_ORDER_REJECTED,
        FailureReason.FAILURE_REASON_ORDER_EXPIRED,
        FailureReason.FAILURE_REASON_NOT_PERMITTED_HERE,
    }
)


def told_of(signed: SignedBytes, answered: Answered) -> Ran | None:
    """What is told of the answer to an order; None where there is nothing that a ledger could look for."""
    search_id, made = signed.order.search_id, answered.answer
    day = _decided_on(signed)
    # Of what was run both are sound; of what was refused they are whatever the order said.
    if day is None or _SEARCH_ID.fullmatch(search_id) is None:
        return None
    run = pb.Run(
        search_id=search_id,
        order_sha256=signed.order_sha256,
        request_sha256=signed.request_sha256,
        answer_sha256=answered.sha256,
        result=_result(made),
        answered_at=made.answered_at,
    )
    return Ran(day, run.SerializeToString(deterministic=True))


def _result(made: pb.SearchAnswer) -> pb.RunResult.ValueType:
    if made.HasField("found"):
        return pb.RUN_RESULT_FOUND
    return pb.RUN_RESULT_REFUSED if made.failure.reason in _REFUSALS else pb.RUN_RESULT_FAILED


def _decided_on(signed: SignedBytes) -> str | None:
    """The UTC day of the decision, as its entry says."""
    entry = signed.decision
    if entry is None:
        return None
    try:
        microseconds = microseconds_of(entry.recorded_at)
    except ValueError:
        return None
    return _day(microseconds // _DAY)


@functools.lru_cache(maxsize=DAYS_AT_HAND)
def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).isoformat()
