"""What the requester checks before it believes anything. No I/O; trusts the trust roots alone.

`open_answer` follows these steps, and any failure is a VerificationError that names the step:
1. the decision's receipt: the ledger's signature, and the entry's inclusion;
2. the decision is a permit of this search, bound to the request that was sent;
3. the end's receipt, likewise;
4. the end is of this decision, and bears the digest of this answer;
5. the answer is signed by the system's connector, is to this request, and says what the ledger records;
6. the candidates open with the key made for this search, and are as many as the answer says.
"""

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from countersign.broker.v1.broker_pb2 import Search
from countersign.client.prepare import PreparedSearch
from countersign.connector.v1.connector_pb2 import CandidateList, SearchAnswer, SearchFailure
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Receipt,
    VerdictOutcome,
)
from shared.binding import bind, request_digest
from shared.registry import TrustRoots
from shared.sealing import Unopenable, candidates_info
from shared.signing import ANSWER_CONTEXT, BadSignature, VerifyKey
from tlog import proof
from tlog.errors import TlogError
from tlog.note import Verifier


class VerificationError(Exception):
    """Something does not verify; `reason` is stable, the text says what it means."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class OpenedAnswer:
    """An answer that verified: the candidates, or why there are none."""

    candidates: CandidateList | None
    failure: SearchFailure | None


def verify_receipt(receipt: Receipt, trust: TrustRoots) -> Entry:
    """The entry, if a trusted ledger has it. Raises VerificationError."""
    last: TlogError | None = None
    for vkey in trust.log_verifier_keys:
        try:
            index, _ = proof.verify_receipt(receipt.leaf, receipt.tlog_proof, Verifier.parse(vkey))
            if index != receipt.index:
                raise VerificationError("RECEIPT_INVALID", "the proof is of another index")
            return Entry.FromString(receipt.leaf)
        except TlogError as error:
            last = error
        except DecodeError as error:
            raise VerificationError("RECEIPT_INVALID", "the entry cannot be read") from error
    raise VerificationError("RECEIPT_INVALID", f"the receipt does not verify: {last}")


def verify_decision(search: Search, trust: TrustRoots) -> Entry:
    """The SearchDecided entry of the search. Raises VerificationError."""
    entry = verify_receipt(search.decision_receipt, trust)
    if not entry.HasField("search_decided") or entry.search_id != search.search_id:
        raise VerificationError("DECISION_MISMATCH", "the receipt is of another entry")
    if entry.search_decided.decision != search.decision:
        raise VerificationError("DECISION_MISMATCH", "the ledger has another decision")
    return entry


def open_answer(
    prepared: PreparedSearch, search: Search, officer: str, trust: TrustRoots
) -> OpenedAnswer:
    """Verifies everything and opens the answer. Raises VerificationError."""
    decided = verify_decision(search, trust).search_decided  # steps 1 and 2
    bound = bind(
        prepared.facts,
        officer,
        prepared.sealed_probe,
        prepared.answer_key.public_key,
        prepared.salt,
    )
    if not _is_permit(decided.decision) or decided.request_sha256 != request_digest(bound):
        raise VerificationError("DECISION_MISMATCH", "no permit of this request is on record")
    end = verify_receipt(search.end_receipt, trust)  # step 3
    ended = end.search_failed if end.HasField("search_failed") else end.search_answered  # step 4
    if (
        end.search_id != search.search_id
        or ended.decided_index != search.decision_receipt.index
        or ended.answer_sha256 != hashlib.sha256(search.answer.answer).digest()
    ):
        raise VerificationError("ANSWER_NOT_RECORDED", "the ledger has no such answer")
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


def _is_permit(decision: Decision) -> bool:
    return (
        decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
        and len(decision.verdicts) > 0
        and all(
            verdict.outcome == VerdictOutcome.VERDICT_OUTCOME_PERMIT
            for verdict in decision.verdicts
        )
    )


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
    keys = trust.systems.get(prepared.facts.system)
    if keys is None:
        raise VerificationError("SYSTEM_UNKNOWN", "the trust roots do not know the system")
    try:
        VerifyKey(keys.answer_verify_key).verify(
            ANSWER_CONTEXT, search.answer.answer, search.answer.signature
        )
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
    above = sum(candidate.above_threshold for candidate in candidates.candidates)
    if (
        candidates.search_id != prepared.search_id
        or candidates.gallery != answer.gallery
        or (len(candidates.candidates), above)
        != (answer.found.returned, answer.found.above_threshold)
    ):
        raise VerificationError("ANSWER_MISMATCH", "the candidate list is not the recorded one")
    return candidates
