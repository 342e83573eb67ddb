"""What the requester checks before it believes anything. No I/O; trusts the trust roots alone.

`verify_search` follows steps 1 to 4 and `open_answer` all; a failure is a VerificationError that names it:
1. the decision's receipt: the ledger's signature, and the entry's inclusion;
2. the decision is of the search asked for, and bound to the request that was sent;
3. the end's receipt, likewise; the end is of this decision, and bears the digest of the answer, if any;
4. what the broker says of the search is what the two entries say;
5. the answer is signed by the system's connector, is to this request, and says what the ledger records;
6. the candidates open with the key made for this search, and are as many as the answer says.

Of a search that was referred to a peer, the peer's ledger must have all of this too (`verify_peer`).

No receipt shows that an end is being kept back: a search that is told as pending may have ended.
"""

import functools
import hashlib
import operator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from countersign.broker.v1.broker_pb2 import (
    CheckSearchResponse,
    DischargeObligationResponse,
    Search,
    SearchState,
)
from countersign.client.failure import VerificationError as VerificationError
from countersign.client.prepare import PreparedSearch
from countersign.client.verify_peer import is_referred, verify_peer, verify_peer_decision
from countersign.connector.v1.connector_pb2 import (
    CandidateList,
    FailureReason,
    SearchAnswer,
    SearchFailure,
)
from countersign.ledger.v1.entry_pb2 import (
    Entry,
    SearchAnswered,
    SearchDecided,
    SearchFailed,
    SearchSummary,
)
from countersign.ledger.v1.event_pb2 import DischargeResult
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Obligation,
    Receipt,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import SearchFacts
from shared.binding import bind, request_digest
from shared.referral import keys_of, peer_with
from shared.registry import TrustRoots
from shared.sealing import Unopenable, candidates_info
from shared.signing import BadSignature, VerifyKey
from shared.together import verify_answer
from tlog import proof
from tlog.checkpoint import Checkpoint, open_checkpoint
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError

_END_STATES: Final = {
    "search_answered": SearchState.SEARCH_STATE_ANSWERED,
    "search_failed": SearchState.SEARCH_STATE_FAILED,
    "search_expired": SearchState.SEARCH_STATE_EXPIRED,
    "search_withdrawn": SearchState.SEARCH_STATE_WITHDRAWN,
}
# Read once: each look at a value of an enumeration goes through Python of the library.
_PENDING: Final = SearchState.SEARCH_STATE_PENDING
_REFUSED_STATE: Final = SearchState.SEARCH_STATE_REFUSED
_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED
_REFUSED: Final = DecisionOutcome.DECISION_OUTCOME_REFUSED
_ALL_PERMIT: Final = frozenset({VerdictOutcome.VERDICT_OUTCOME_PERMIT})
_stated_facts: Final = operator.attrgetter(
    "origin_agency",
    "beneficiary_agency",
    "system",
    "gallery",
    "purpose",
    "suspicion",
    "offence",
    "provenance",
    "capture_mode",
    "circumstances",
)
"""What the ledger's summary repeats of the facts as they were stated."""

_KEYS_AT_HAND: Final = 64
"""Keys that are read once; trust roots hold a few, and reading one costs a tenth of using it."""


@dataclass(frozen=True)
class VerifiedSearch:
    """A search as its entries have it, whatever the broker says; `end` is None if there is none."""

    search_id: str
    decided: Entry
    end: Entry | None

    @property
    def decision(self) -> Decision:
        """What the parties said."""
        return self.decided.search_decided.decision

    @property
    def summary(self) -> SearchSummary:
        """What it is about."""
        return self.decided.search_decided.summary

    @property
    def state(self) -> SearchState.ValueType:
        """Where it stands, as far as the receipts go."""
        if self.decision.outcome == _REFUSED:
            return _REFUSED_STATE
        if self.end is None:
            return _PENDING
        return _END_STATES[str(self.end.WhichOneof("event"))]

    @property
    def failure_reason(self) -> FailureReason.ValueType:
        """Why there is no list; unspecified unless the search failed."""
        return (self.end or Entry()).search_failed.reason

    @property
    def decide_time(self) -> Timestamp:
        """When the ledger took the decision."""
        return self.decided.recorded_at

    @property
    def deadline(self) -> Timestamp:
        """When it expires unless answered; empty when it was refused."""
        return self.decided.search_decided.deadline


@dataclass(frozen=True)
class OpenedAnswer:
    """An answer that verified: the candidates, or why there are none."""

    candidates: CandidateList | None
    failure: SearchFailure | None


_log_key = functools.lru_cache(maxsize=_KEYS_AT_HAND)(parse_log_vkey)
_answer_key = functools.lru_cache(maxsize=_KEYS_AT_HAND)(VerifyKey)


def verify_receipt(receipt: Receipt, trust: TrustRoots) -> Entry:
    """The entry, if a trusted ledger has it. Raises VerificationError."""
    last: TlogError | None = None
    for vkey in trust.log_verifier_keys:
        try:
            index, _ = proof.verify_receipt(receipt.leaf, receipt.tlog_proof, _log_key(vkey))
            if index != receipt.index:
                raise VerificationError("RECEIPT_INVALID", "the proof is of another index")
            return Entry.FromString(receipt.leaf)
        except TlogError as error:
            last = error
        except DecodeError as error:
            raise VerificationError("RECEIPT_INVALID", "the entry cannot be read") from error
    raise VerificationError("RECEIPT_INVALID", f"the receipt does not verify: {last}")


def checkpoint_of(note: str, trust: TrustRoots) -> Checkpoint:
    """The tree that a trusted ledger signed. Raises VerificationError."""
    last: TlogError | None = None
    for vkey in trust.log_verifier_keys:
        try:
            return open_checkpoint(note, _log_key(vkey))
        except TlogError as error:
            last = error
    raise VerificationError("CHECKPOINT_INVALID", f"the checkpoint does not verify: {last}")


def verify_decision(search: Search, trust: TrustRoots) -> Entry:
    """The SearchDecided entry of the search. Raises VerificationError."""
    entry = verify_receipt(search.decision_receipt, trust)
    if not entry.HasField("search_decided") or entry.search_id != search.search_id:
        raise VerificationError("DECISION_MISMATCH", "the receipt is of another entry")
    if entry.search_decided.decision != search.decision:
        raise VerificationError("DECISION_MISMATCH", "the ledger has another decision")
    return entry


def verify_search(
    search: Search,
    asked_id: str,
    trust: TrustRoots,
    prepared: PreparedSearch | None = None,
    officer: str | None = None,
) -> VerifiedSearch:
    """The search that was asked for, from its receipts. Raises VerificationError.

    With what was sent and the officer it was sent for, the decision must be on that very request.
    """
    if search.search_id != asked_id:
        raise VerificationError("SEARCH_MISMATCH", "this is another search than the one asked for")
    decided = verify_decision(search, trust)  # steps 1 and 2
    # Of a peer's system only a referral will do: our own broker's word would do without the peer.
    if peer_with(trust, decided.search_decided.summary.system) is None:
        permit = _is_permit(search.decision)
    else:
        permit = is_referred(decided.search_decided, trust)
    if not permit and search.decision.outcome != _REFUSED:
        raise VerificationError("DECISION_MISMATCH", "the decision is no refusal, and no permit")
    if prepared is not None and officer is not None:
        _require_sent(decided.search_decided, prepared, officer)
    end = _verified_end(search, permit, trust)  # step 3
    if search.HasField("peer"):
        verify_peer_decision(search, decided.search_decided, end, trust)
    verified = VerifiedSearch(search_id=asked_id, decided=decided, end=end)
    _require_told(search, verified)  # step 4
    return verified


def verify_check(response: CheckSearchResponse, facts: SearchFacts, trust: TrustRoots) -> Entry:
    """The SearchChecked entry of a dry run on these facts. Raises VerificationError.

    The entry does not name the search, so an earlier dry run on the same facts would pass too.
    """
    entry = verify_receipt(response.receipt, trust)
    if not entry.HasField("search_checked"):
        raise VerificationError("CHECK_MISMATCH", "the receipt is of another entry")
    if entry.search_checked.decision != response.decision:
        raise VerificationError("CHECK_MISMATCH", "the ledger has another decision")
    if not _is_about(entry.search_checked.summary, facts):
        raise VerificationError("SUMMARY_MISMATCH", "the ledger has another question")
    return entry


def verify_discharge(
    response: DischargeObligationResponse, decided: Receipt, duty: Obligation, trust: TrustRoots
) -> Entry:
    """The entry that this duty of this decision was done. Raises VerificationError.

    The decision's receipt must have been verified.
    """
    entry = verify_receipt(response.receipt, trust)
    told, decision = entry.obligation_discharged, Entry.FromString(decided.leaf)
    named = (duty.kind, duty.rule_id, duty.party, decided.index, decision.search_id)
    if (
        not entry.HasField("obligation_discharged")
        or (told.kind, told.rule_id, told.party, told.decided_index, entry.search_id) != named
        or told.origin_agency != decision.search_decided.summary.origin_agency
        or told.result != DischargeResult.DISCHARGE_RESULT_DONE
    ):
        raise VerificationError("DISCHARGE_MISMATCH", "the receipt is not of this duty's discharge")
    return entry


def open_answer(
    prepared: PreparedSearch, search: Search, officer: str, trust: TrustRoots
) -> OpenedAnswer:
    """Verifies everything and opens the answer. Raises VerificationError."""
    verified = verify_search(search, prepared.search_id, trust, prepared, officer)  # steps 1 to 4
    decided, end = verified.decided.search_decided, verified.end
    if verified.state == _REFUSED_STATE:
        raise VerificationError("DECISION_MISMATCH", "no permit of this request is on record")
    if end is None or not search.HasField("answer"):
        raise VerificationError("ANSWER_NOT_RECORDED", "the ledger has no such answer")
    if peer_with(trust, decided.summary.system) is not None:
        verify_peer(search, decided, end, trust)
    answer = _signed_answer(prepared, search, trust)  # step 5
    # A connector that could not read the request has no digest to bind a failure to.
    unread = answer.HasField("failure") and not answer.request_sha256
    if not unread and answer.request_sha256 != decided.request_sha256:
        raise VerificationError("ANSWER_MISMATCH", "the answer is to another request")
    if _result(answer) != _recorded_result(end):
        raise VerificationError("ANSWER_NOT_RECORDED", "the ledger records another result")
    if answer.HasField("failure"):
        return OpenedAnswer(candidates=None, failure=answer.failure)
    if answer.gallery != prepared.facts.gallery:
        raise VerificationError("ANSWER_MISMATCH", "another gallery was searched")
    return OpenedAnswer(candidates=_open(prepared, answer), failure=None)  # step 6


def _require_sent(decided: SearchDecided, prepared: PreparedSearch, officer: str) -> None:
    """The decision is on the request that was sent, and on record as being about its facts."""
    bound = bind(
        prepared.facts,
        officer,
        prepared.sealed_probe,
        prepared.answer_key.public_key,
        prepared.salt,
    )
    if decided.request_sha256 != request_digest(bound):
        raise VerificationError("DECISION_MISMATCH", "the decision is on another request")
    if not _is_about(decided.summary, prepared.facts):
        raise VerificationError("SUMMARY_MISMATCH", "the ledger's summary is of other facts")


def _is_about(summary: SearchSummary, facts: SearchFacts) -> bool:
    return bool(_stated_facts(summary) == _stated_facts(facts))


def _verified_end(search: Search, permit: bool, trust: TrustRoots) -> Entry | None:
    """The end of this decision, if its receipt is there; an answer must be the one it records."""
    end = None
    if search.HasField("end_receipt"):
        if not permit:
            raise VerificationError("END_MISMATCH", "a refused search has no other end")
        end = verify_receipt(search.end_receipt, trust)
        kind = str(end.WhichOneof("event"))
        if (
            kind not in _END_STATES
            or end.search_id != search.search_id
            or getattr(end, kind).decided_index != search.decision_receipt.index
        ):
            raise VerificationError("END_MISMATCH", "the receipt is not of this decision's end")
    if search.HasField("answer"):
        digest = hashlib.sha256(search.answer.answer).digest()
        if end is None or _answer_sha256(end) != digest:
            raise VerificationError("ANSWER_NOT_RECORDED", "the ledger has no such answer")
    return end


def _answer_sha256(end: Entry) -> bytes:
    """Digest of the answer on record; empty when the search ended without one."""
    ended: SearchAnswered | SearchFailed = (
        end.search_failed if end.HasField("search_failed") else end.search_answered
    )
    return ended.answer_sha256


def _require_told(search: Search, verified: VerifiedSearch) -> None:
    """The broker's message says what the entries say."""
    if search.state != verified.state:
        told = SearchState.Name(verified.state).removeprefix("SEARCH_STATE_")
        raise VerificationError("STATE_MISMATCH", f"by its receipts the search is {told}")
    if search.summary != verified.summary:
        raise VerificationError("SUMMARY_MISMATCH", "the ledger has another summary")
    if search.failure_reason != verified.failure_reason:
        raise VerificationError("FAILURE_MISMATCH", "the ledger has another reason of failure")
    if search.decide_time != verified.decide_time:
        raise VerificationError("DECIDE_TIME_MISMATCH", "the ledger has another time of decision")
    if search.deadline != verified.deadline:
        raise VerificationError("DEADLINE_MISMATCH", "the ledger has another deadline")


def _is_permit(decision: Decision) -> bool:
    said = {verdict.outcome for verdict in decision.verdicts}
    return decision.outcome == _PERMITTED and said == _ALL_PERMIT


def _result(answer: SearchAnswer) -> tuple[object, ...]:
    """What the ledger must say of the answer."""
    if answer.HasField("failure"):
        return (answer.failure.reason, answer.failure.check)
    found = answer.found
    return (found.returned, found.above_threshold, found.gallery_size, found.algorithm)


def _recorded_result(end: Entry) -> tuple[object, ...]:
    if end.HasField("search_failed"):
        return (end.search_failed.reason, end.search_failed.check)
    ended = end.search_answered
    return (
        ended.candidates_returned,
        ended.candidates_above_threshold,
        ended.gallery_size,
        ended.algorithm,
    )


def _signed_answer(prepared: PreparedSearch, search: Search, trust: TrustRoots) -> SearchAnswer:
    keys = keys_of(trust, prepared.facts.system)
    if keys is None:
        raise VerificationError("SYSTEM_UNKNOWN", "the trust roots do not know the system")
    try:
        verify_answer(_answer_key(keys.answer_verify_key), search.answer)
        answer = SearchAnswer.FromString(search.answer.answer)
    except (BadSignature, DecodeError) as error:
        raise VerificationError("ANSWER_SIGNATURE", "the answer is not the connector's") from error
    if answer.search_id != prepared.search_id or answer.system != prepared.facts.system:
        raise VerificationError("ANSWER_MISMATCH", "the answer is to another search")
    return answer


def _open(prepared: PreparedSearch, answer: SearchAnswer) -> CandidateList:
    info = candidates_info(answer.search_id, answer.order_sha256)
    try:
        plaintext = prepared.answer_key.open(answer.found.sealed_candidates, info)
        candidates = CandidateList.FromString(plaintext)
    except (Unopenable, DecodeError) as error:
        raise VerificationError("CANDIDATES_UNOPENABLE", "the candidates do not open") from error
    above = [candidate.above_threshold for candidate in candidates.candidates].count(True)
    if (
        candidates.search_id != prepared.search_id
        or candidates.gallery != answer.gallery
        or (len(candidates.candidates), above)
        != (answer.found.returned, answer.found.above_threshold)
    ):
        raise VerificationError("ANSWER_MISMATCH", "the candidate list is not the recorded one")
    return candidates
