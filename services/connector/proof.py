"""Says whether an order proves that its search is permitted and recorded. Takes values, does no I/O.

The steps, in order; the first that fails refuses the order with the word in brackets, which stands
in the signed answer and in the ledger:

1. The order is signed, by itself or with others, by a broker whose key the connector holds. [ORDER_SIGNATURE]
2. What is signed is a whole order. [ORDER_MALFORMED]
3. It is for this system. [WRONG_SYSTEM]
4. It is neither stale nor from the future, and its deadline has not passed.
   [ORDER_TIMES, ORDER_EXPIRED]
5. Its receipt proves an entry to be in the log that the connector knows, and the quorum of witnesses has
   cosigned the tree that it leads to, where the connector demands one. [RECEIPT_INVALID, RECEIPT_UNWITNESSED]
6. That entry is a decision on this search, every party permits, and the order's deadline is not later than
   the one recorded. [DECISION_MISMATCH, DECISION_NOT_PERMITTED, DEADLINE_MISMATCH]
7. The request in the order is the one decided on, of valid facts, for this search, system and
   gallery, and its answer can be sealed. [REQUEST_MISMATCH, REQUEST_INVALID, WRONG_GALLERY]
8. The sealed probe is the one that the request was bound to. [PROBE_MISMATCH]
9. The connector's own agency permits: its directives, evaluated again. [OWN_DIRECTIVES]

That the search has not been run before is seen from what the connector keeps (see `orders`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import protovalidate
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from countersign.connector.v1.connector_pb2 import FailureReason, SearchOrder, SignedOrder
from countersign.ledger.v1.entry_pb2 import Entry, SearchDecided
from countersign.type.v1.decision_pb2 import DecisionOutcome, Verdict, VerdictOutcome
from countersign.type.v1.search_pb2 import BoundRequest, SealedPayload, SearchFacts
from shared.binding import payload_digest, request_digest
from shared.sealing import can_be_sealed_to
from shared.signing import BadSignature, VerifyKey
from shared.times import no_times
from shared.together import verify_order
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.policy import Policy
from tlog.proof import verify_receipt
from tlog.verify import Failure, NotVerified, verify_proof

CLOCK_SKEW_MAX = timedelta(minutes=2)
"""How far ahead of ours the broker's clock may be: more than time services let machines drift."""

VALIDITY_MAX = timedelta(days=7)
"""Longest time between making an order and its deadline: the longest wait that a search may ask for."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = 1_000_000
_CLOCK_SKEW_MAX: Final = CLOCK_SKEW_MAX // _MICROSECOND
_VALIDITY_MAX: Final = VALIDITY_MAX // _MICROSECOND
_SECONDS_FIRST: Final = -62_135_596_800
_SECONDS_LAST: Final = 253_402_300_799
"""Of the years 1 to 9999, which is what the contracts take for a time."""

# Looking an enum's value up costs more than comparing it.
_PERMIT: Final = VerdictOutcome.VERDICT_OUTCOME_PERMIT
_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED

OwnDirectives = Callable[[BoundRequest, datetime], Sequence[Verdict]]
"""Evaluates the directives of the connector's own agency: one verdict for each seat it holds. May
not raise; what cannot be evaluated is a verdict of CANNOT_TELL."""


CHECKS: Final = frozenset(
    {
        "DEADLINE_MISMATCH",
        "DECISION_MISMATCH",
        "DECISION_NOT_PERMITTED",
        "ORDER_EXPIRED",
        "ORDER_MALFORMED",
        "ORDER_MISPLACED",
        "ORDER_SIGNATURE",
        "ORDER_TIMES",
        "OWN_DIRECTIVES",
        "PROBE_MISMATCH",
        "RECEIPT_INVALID",
        "RECEIPT_UNWITNESSED",
        "REQUEST_INVALID",
        "REQUEST_MISMATCH",
        "SEARCH_ALREADY_RUN",
        "WRONG_GALLERY",
        "WRONG_SYSTEM",
    }
)
"""Every check that an order may fail. They are stable, and few: metrics bear them."""


class OrderRefused(Exception):
    """The order may not be run; the reason and the failed check go into the answer."""

    def __init__(
        self,
        check: str,
        reason: FailureReason.ValueType = FailureReason.FAILURE_REASON_ORDER_REJECTED,
    ) -> None:
        super().__init__(check)
        assert check in CHECKS, check
        self.reason = reason
        self.check = check


@dataclass(frozen=True)
class Expectations:
    """What the connector holds itself, against which every order is checked."""

    system: str
    gallery: str
    broker_keys: Mapping[str, VerifyKey]
    """By key id."""
    logs: tuple[LogVerifier, ...]
    own_directives: OwnDirectives
    witnesses: Policy | None = None
    """Those logs, with witnesses and the quorum of them that must have cosigned; None demands none."""


class SignedBytes(NamedTuple):
    """An order of which the broker's signature is verified, and nothing else yet."""

    order: SearchOrder
    order_sha256: bytes
    bound_request: bytes
    request_sha256: bytes
    leaf: bytes
    """Of its receipt, which is not verified yet (step 5)."""
    decision: Entry | None
    """What the leaf says; None for one that is no entry."""
    sealed_probe: SealedPayload
    """Beside the signature, and so not verified before its digest is (step 8)."""


class VerifiedOrder(NamedTuple):
    """An order that may be run."""

    search_id: str
    order_sha256: bytes
    request_sha256: bytes
    facts: SearchFacts
    sealed_probe: SealedPayload
    answer_public_key: bytes


def read_signed(
    signed: SignedOrder, broker_keys: Mapping[str, VerifyKey], read: SearchOrder | None = None
) -> SignedBytes:
    """Steps 1 and 2; raises OrderRefused. `read` is what was read of the signed bytes before."""
    key = broker_keys.get(signed.key_id)
    if key is None:
        raise OrderRefused("ORDER_SIGNATURE")
    data = signed.order
    try:
        order_sha256 = verify_order(key, signed)
    except BadSignature:
        raise OrderRefused("ORDER_SIGNATURE") from None
    try:
        order = read or SearchOrder.FromString(data)
    except DecodeError:
        raise OrderRefused("ORDER_MALFORMED") from None
    if not (order.HasField("deadline") and order.HasField("issued_at")):
        raise OrderRefused("ORDER_MALFORMED")
    # Each look at a field makes its value anew.
    bound_request, leaf = order.bound_request, order.decision_receipt.leaf
    return SignedBytes(
        order=order,
        order_sha256=order_sha256,
        bound_request=bound_request,
        request_sha256=request_digest(bound_request),
        leaf=leaf,
        decision=_entry(leaf),
        sealed_probe=signed.sealed_probe,
    )


def _entry(leaf: bytes) -> Entry | None:
    try:
        return Entry.FromString(leaf)
    except DecodeError:
        return None


def verify(signed: SignedBytes, expected: Expectations, now: datetime) -> VerifiedOrder:
    """Steps 3 to 9; raises OrderRefused."""
    order = signed.order
    if order.system != expected.system:
        raise OrderRefused("WRONG_SYSTEM")
    deadline = _check_times(order, now)
    decided = _check_decision(signed, expected, deadline)
    request = _check_request(signed, decided, expected)
    if payload_digest(signed.sealed_probe) != request.sealed_probe_sha256:
        raise OrderRefused("PROBE_MISMATCH")
    verdicts = expected.own_directives(request, now)
    if not all_permit(verdicts):
        raise OrderRefused("OWN_DIRECTIVES", FailureReason.FAILURE_REASON_NOT_PERMITTED_HERE)
    return VerifiedOrder(
        search_id=order.search_id,
        order_sha256=signed.order_sha256,
        request_sha256=signed.request_sha256,
        facts=request.facts,
        sealed_probe=signed.sealed_probe,
        answer_public_key=request.answer_public_key,
    )


def microseconds_of(timestamp: Timestamp) -> int:
    """A message's time since 1970, cut to microseconds as `ToDatetime` does; raises ValueError for none.

    Comparing these costs a tenth of what it costs to make times of them first.
    """
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not (_SECONDS_FIRST <= seconds <= _SECONDS_LAST and 0 <= nanos < 1_000_000_000):
        raise ValueError("not a time")
    return seconds * _SECOND + nanos // 1000


def all_permit(verdicts: Sequence[Verdict]) -> bool:
    """True if there are verdicts and each is a permit. Anything else, known or not, is none."""
    return bool(verdicts) and all(verdict.outcome == _PERMIT for verdict in verdicts)


def _check_times(order: SearchOrder, now: datetime) -> int:
    """Step 4. The deadline comes last, so that an expired order is known to be sound otherwise."""
    issued_at, deadline = _instant(order.issued_at), _instant(order.deadline)
    present = (now - _EPOCH) // _MICROSECOND
    if issued_at > present + _CLOCK_SKEW_MAX:
        raise OrderRefused("ORDER_TIMES")
    if not issued_at < deadline <= issued_at + _VALIDITY_MAX:
        raise OrderRefused("ORDER_TIMES")
    if deadline <= present:
        raise OrderRefused("ORDER_EXPIRED", FailureReason.FAILURE_REASON_ORDER_EXPIRED)
    return deadline


def _instant(timestamp: Timestamp) -> int:
    try:
        return microseconds_of(timestamp)
    except ValueError:
        raise OrderRefused("ORDER_TIMES") from None


def _check_decision(signed: SignedBytes, expected: Expectations, deadline: int) -> SearchDecided:
    """Steps 5 and 6."""
    receipt, leaf, entry = signed.order.decision_receipt, signed.leaf, signed.decision
    tlog_proof, index = receipt.tlog_proof, receipt.index
    if not any(_proves(log, leaf, tlog_proof, index) for log in expected.logs):
        raise OrderRefused("RECEIPT_INVALID")
    if expected.witnesses is not None:
        _check_witnessed(leaf, tlog_proof, expected.witnesses)
    if entry is None or entry.search_id != signed.order.search_id:
        raise OrderRefused("DECISION_MISMATCH")
    if entry.WhichOneof("event") != "search_decided":
        raise OrderRefused("DECISION_MISMATCH")
    decided = entry.search_decided
    decision = decided.decision
    if decision.outcome != _PERMITTED or not all_permit(decision.verdicts):
        raise OrderRefused("DECISION_NOT_PERMITTED")
    if not decided.HasField("deadline") or deadline > _instant(decided.deadline):
        raise OrderRefused("DEADLINE_MISMATCH")
    return decided


def _proves(log: LogVerifier, leaf: bytes, tlog_proof: str, index: int) -> bool:
    try:
        proved, _ = verify_receipt(leaf, tlog_proof, log)
    except TlogError:
        return False
    return proved == index


def _check_witnessed(leaf: bytes, tlog_proof: str, witnesses: Policy) -> None:
    """The end of step 5. The log's own key can sign two histories; it cannot have both witnessed."""
    try:
        verify_proof(leaf, tlog_proof, witnesses)
    except NotVerified as error:
        lacks = error.failure is Failure.QUORUM_MISSING
        raise OrderRefused("RECEIPT_UNWITNESSED" if lacks else "RECEIPT_INVALID") from None


def _check_request(
    signed: SignedBytes, decided: SearchDecided, expected: Expectations
) -> BoundRequest:
    """Step 7."""
    if signed.request_sha256 != decided.request_sha256:
        raise OrderRefused("REQUEST_MISMATCH")
    try:
        request = BoundRequest.FromString(signed.bound_request)
    except DecodeError:
        raise OrderRefused("REQUEST_INVALID") from None
    facts = request.facts
    if facts.search_id != signed.order.search_id or facts.system != expected.system:
        raise OrderRefused("REQUEST_MISMATCH")
    if facts.gallery != expected.gallery:
        raise OrderRefused("WRONG_GALLERY")
    sealable = can_be_sealed_to(request.answer_public_key)
    if not sealable or not request.officer or _violates(facts):
        raise OrderRefused("REQUEST_INVALID")
    return request


def _violates(facts: SearchFacts) -> bool:
    return bool(protovalidate.collect_violations(facts)) or any(no_times(facts))
