"""The requester believes nothing that it cannot verify: each step attacked, each with its reason."""

from collections.abc import Callable
from typing import Final

import pytest

from countersign.broker.v1.broker_pb2 import Search
from countersign.client.verify import (
    VerificationError,
    open_answer,
    verify_decision,
    verify_receipt,
)
from countersign.connector.v1.connector_pb2 import CandidateList, FailureReason, SearchAnswer
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from shared.registry import TrustRoots
from shared.sealing import PrivateKey, candidates_info, seal
from shared.signing import ORDER_CONTEXT, SigningKey
from support.orders import OFFICER, SEARCH_ID, log_signer
from support.searches import ORDER_SHA256, PERMITTED, LogInMemory, SearchWorkshop

OTHER_ID: Final = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11"


@pytest.fixture
def workshop() -> SearchWorkshop:
    return SearchWorkshop()


def answered(workshop: SearchWorkshop) -> Search:
    """A sound search."""
    return workshop.end(workshop.decide(), workshop.sign(workshop.answer()))


def refused(
    workshop: SearchWorkshop,
    search: Search,
    *,
    officer: str = OFFICER,
    trust: TrustRoots | None = None,
) -> str:
    """The reason for which the search is not believed."""
    with pytest.raises(VerificationError) as caught:
        open_answer(workshop.prepared, search, officer, trust or workshop.trust)
    return caught.value.reason


def test_sound_search_opens(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    opened = open_answer(workshop.prepared, search, OFFICER, workshop.trust)
    assert opened.failure is None
    assert opened.candidates == workshop.candidates()


def test_sound_refusal_verifies(workshop: SearchWorkshop) -> None:
    decision = Decision(outcome=DecisionOutcome.DECISION_OUTCOME_REFUSED)
    search = workshop.decide(decision)
    assert verify_decision(search, workshop.trust).search_decided.decision == decision
    assert refused(workshop, search) == "DECISION_MISMATCH"


@pytest.mark.parametrize("digest", [True, False])
def test_sound_failure_is_told(workshop: SearchWorkshop, digest: bool) -> None:
    """With no digest, from a connector that could not read the order."""

    def fails(answer: SearchAnswer) -> None:
        answer.failure.reason = FailureReason.FAILURE_REASON_ORDER_REJECTED
        answer.failure.check = "REQUEST_INVALID"
        if not digest:
            answer.ClearField("request_sha256")

    signed = workshop.sign(workshop.answer(changed=fails))
    search = workshop.end(workshop.decide(), signed)
    opened = open_answer(workshop.prepared, search, OFFICER, workshop.trust)
    assert opened.candidates is None
    assert opened.failure
    assert opened.failure.reason == FailureReason.FAILURE_REASON_ORDER_REJECTED


def test_log_whose_key_was_renewed_is_believed_under_either(workshop: SearchWorkshop) -> None:
    keys = (log_signer().verifier.vkey, "not a key", *workshop.trust.log_verifier_keys)
    trust = workshop.trust.model_copy(update={"log_verifier_keys": keys})
    assert open_answer(workshop.prepared, answered(workshop), OFFICER, trust).candidates


# Steps 1 and 3: receipts


@pytest.mark.parametrize("which", ["decision_receipt", "end_receipt"])
def test_receipt_that_another_log_signed(workshop: SearchWorkshop, which: str) -> None:
    search = answered(workshop)
    forged = LogInMemory(log_signer())
    forged.leaves = workshop.log.leaves
    receipt = getattr(search, which)
    receipt.CopyFrom(forged.receipt(receipt.index))
    assert refused(workshop, search) == "RECEIPT_INVALID"


@pytest.mark.parametrize("which", ["decision_receipt", "end_receipt"])
def test_receipt_for_an_entry_that_was_edited(workshop: SearchWorkshop, which: str) -> None:
    search = answered(workshop)
    receipt = getattr(search, which)
    entry = Entry.FromString(receipt.leaf)
    entry.recorded_by = "spiffe://countersign.test/service/another"
    receipt.leaf = entry.SerializeToString()
    assert refused(workshop, search) == "RECEIPT_INVALID"


@pytest.mark.parametrize("which", ["decision_receipt", "end_receipt"])
def test_receipt_that_claims_another_index(workshop: SearchWorkshop, which: str) -> None:
    search = answered(workshop)
    getattr(search, which).index += 1
    assert refused(workshop, search) == "RECEIPT_INVALID"


@pytest.mark.parametrize("which", ["decision_receipt", "end_receipt"])
@pytest.mark.parametrize("proof", ["", "c2sp.org/tlog-proof@v1\n", "\N{SNOWMAN}"])
def test_receipt_without_a_proof(workshop: SearchWorkshop, which: str, proof: str) -> None:
    search = answered(workshop)
    getattr(search, which).tlog_proof = proof
    assert refused(workshop, search) == "RECEIPT_INVALID"


def test_receipt_of_a_leaf_that_is_no_entry(workshop: SearchWorkshop) -> None:
    workshop.log.leaves.append(b"\xff\xff")
    with pytest.raises(VerificationError) as caught:
        verify_receipt(workshop.log.receipt(2), workshop.trust)
    assert caught.value.reason == "RECEIPT_INVALID"


def test_no_end_at_all(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.ClearField("end_receipt")
    assert refused(workshop, search) == "ANSWER_NOT_RECORDED"


# Step 2: the decision


def test_receipts_exchanged(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.decision_receipt.CopyFrom(search.end_receipt)
    assert refused(workshop, search) == "DECISION_MISMATCH"


def test_receipt_of_another_searchs_decision(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    other = workshop.another(OTHER_ID).decide()
    search.decision_receipt.CopyFrom(other.decision_receipt)
    assert refused(workshop, search) == "DECISION_MISMATCH"


def test_decision_edited_after_it_was_recorded(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.decision.verdicts[0].party = "CA0191200"
    assert refused(workshop, search) == "DECISION_MISMATCH"
    with pytest.raises(VerificationError):
        verify_decision(search, workshop.trust)


def test_refusal_shown_as_a_permit(workshop: SearchWorkshop) -> None:
    search = workshop.decide(Decision(outcome=DecisionOutcome.DECISION_OUTCOME_REFUSED))
    search.decision.CopyFrom(PERMITTED)
    search = workshop.end(search, workshop.sign(workshop.answer()))
    assert refused(workshop, search) == "DECISION_MISMATCH"


def _one_forbids(decision: Decision) -> None:
    decision.verdicts[1].outcome = VerdictOutcome.VERDICT_OUTCOME_FORBID


def _one_cannot_tell(decision: Decision) -> None:
    decision.verdicts[1].outcome = VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL


def _nobody_asked(decision: Decision) -> None:
    del decision.verdicts[:]


@pytest.mark.promise(3)
@pytest.mark.parametrize("change", [_one_forbids, _one_cannot_tell, _nobody_asked])
def test_recorded_permit_that_no_verdicts_bear_out(
    workshop: SearchWorkshop, change: Callable[[Decision], None]
) -> None:
    decision = Decision()
    decision.CopyFrom(PERMITTED)
    change(decision)
    search = workshop.end(workshop.decide(decision), workshop.sign(workshop.answer()))
    assert refused(workshop, search) == "DECISION_MISMATCH"


def test_permit_of_another_request_under_this_id(workshop: SearchWorkshop) -> None:
    def another_request(entry: Entry) -> None:
        entry.search_decided.request_sha256 = bytes(32)

    search = workshop.decide(changed=another_request)
    search = workshop.end(search, workshop.sign(workshop.answer()))
    assert refused(workshop, search) == "DECISION_MISMATCH"


def test_permit_for_another_officer(workshop: SearchWorkshop) -> None:
    assert refused(workshop, answered(workshop), officer="lapd-40777") == "DECISION_MISMATCH"


def test_search_of_somebody_else(workshop: SearchWorkshop) -> None:
    assert refused(workshop, answered(workshop.another(OTHER_ID))) == "SEARCH_MISMATCH"


# Step 4: what the ledger says of the end


def test_answer_edited_after_it_was_recorded(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    answer = SearchAnswer.FromString(search.answer.answer)
    answer.found.returned = 2
    search.answer.CopyFrom(workshop.sign(answer))  # even by the connector itself
    assert refused(workshop, search) == "ANSWER_NOT_RECORDED"


def test_answer_withheld(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.ClearField("answer")
    assert refused(workshop, search) == "ANSWER_NOT_RECORDED"


def test_answer_of_another_search_with_its_own_end(workshop: SearchWorkshop) -> None:
    other = answered(workshop.another(OTHER_ID))
    search = workshop.decide()
    search.end_receipt.CopyFrom(other.end_receipt)
    search.answer.CopyFrom(other.answer)
    assert refused(workshop, search) == "END_MISMATCH"


def test_end_of_an_earlier_decision_on_the_same_id(workshop: SearchWorkshop) -> None:
    earlier = answered(workshop)
    search = workshop.decide()
    search.end_receipt.CopyFrom(earlier.end_receipt)
    search.answer.CopyFrom(earlier.answer)
    assert refused(workshop, search) == "END_MISMATCH"


@pytest.mark.parametrize("kind", ["search_expired", "search_withdrawn"])
def test_answer_shown_for_a_search_that_ended_otherwise(
    workshop: SearchWorkshop, kind: str
) -> None:
    def otherwise(entry: Entry) -> None:
        getattr(entry, kind).decided_index = entry.search_answered.decided_index

    search = workshop.end(workshop.decide(), workshop.sign(workshop.answer()), changed=otherwise)
    assert refused(workshop, search) == "ANSWER_NOT_RECORDED"


def _fewer(entry: Entry) -> None:
    entry.search_answered.candidates_returned = 0


def _none_above(entry: Entry) -> None:
    entry.search_answered.candidates_above_threshold = 0


def _smaller(entry: Entry) -> None:
    entry.search_answered.gallery_size = 1


def _failed(entry: Entry) -> None:
    answered = entry.search_answered
    index, digest = answered.decided_index, answered.answer_sha256
    entry.search_failed.decided_index, entry.search_failed.answer_sha256 = index, digest
    entry.search_failed.reason = FailureReason.FAILURE_REASON_NO_FACE


@pytest.mark.parametrize("change", [_fewer, _none_above, _smaller, _failed])
def test_result_that_the_ledger_records_otherwise(
    workshop: SearchWorkshop, change: Callable[[Entry], None]
) -> None:
    """Oversight counts what is recorded, so an answer is not shown that was not recorded as it is."""
    search = workshop.end(workshop.decide(), workshop.sign(workshop.answer()), changed=change)
    assert refused(workshop, search) == "ANSWER_NOT_RECORDED"


# Step 5: the answer


def test_answer_signed_by_another_connector(workshop: SearchWorkshop) -> None:
    signed = workshop.sign(workshop.answer(), key=SigningKey.generate())
    assert refused(workshop, workshop.end(workshop.decide(), signed)) == "ANSWER_SIGNATURE"


def test_answer_signed_for_another_purpose(workshop: SearchWorkshop) -> None:
    signed = workshop.sign(workshop.answer())
    signed.signature = workshop.connector.sign(ORDER_CONTEXT, signed.answer)
    assert refused(workshop, workshop.end(workshop.decide(), signed)) == "ANSWER_SIGNATURE"


def test_answer_with_a_signature_cut_off(workshop: SearchWorkshop) -> None:
    search = answered(workshop)
    search.answer.signature = search.answer.signature[:-1]
    assert refused(workshop, search) == "ANSWER_SIGNATURE"


def test_system_that_the_trust_roots_do_not_know(workshop: SearchWorkshop) -> None:
    trust = workshop.trust.model_copy(update={"systems": {}})
    assert refused(workshop, answered(workshop), trust=trust) == "SYSTEM_UNKNOWN"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("search_id", OTHER_ID),
        ("system", "facefind"),
        ("request_sha256", bytes(32)),
        ("request_sha256", b""),
        ("gallery", "another-gallery"),
    ],
    ids=["search", "system", "request", "no request", "gallery"],
)
def test_answer_to_something_else(workshop: SearchWorkshop, field: str, value: object) -> None:
    signed = workshop.sign(workshop.answer(changed=lambda answer: setattr(answer, field, value)))
    assert refused(workshop, workshop.end(workshop.decide(), signed)) == "ANSWER_MISMATCH"


def test_failure_of_another_request(workshop: SearchWorkshop) -> None:
    def fails(answer: SearchAnswer) -> None:
        answer.failure.reason = FailureReason.FAILURE_REASON_NO_FACE
        answer.request_sha256 = bytes(32)

    signed = workshop.sign(workshop.answer(changed=fails))
    assert refused(workshop, workshop.end(workshop.decide(), signed)) == "ANSWER_MISMATCH"


# Step 6: the candidates


def test_candidates_sealed_to_somebody_else(workshop: SearchWorkshop) -> None:
    answer = workshop.answer(sealed_to=PrivateKey.generate().public_key)
    search = workshop.end(workshop.decide(), workshop.sign(answer))
    assert refused(workshop, search) == "CANDIDATES_UNOPENABLE"


@pytest.mark.parametrize(
    "info",
    [candidates_info(OTHER_ID, ORDER_SHA256), candidates_info(SEARCH_ID, bytes(32))],
    ids=["another search", "another order"],
)
def test_candidates_of_another_search_or_order(workshop: SearchWorkshop, info: bytes) -> None:
    search = workshop.end(workshop.decide(), workshop.sign(workshop.answer(info=info)))
    assert refused(workshop, search) == "CANDIDATES_UNOPENABLE"


def test_candidates_that_are_no_list(workshop: SearchWorkshop) -> None:
    def garbled(answer: SearchAnswer) -> None:
        key = workshop.prepared.answer_key.public_key
        sealed = seal(key, b"\xff\xff", candidates_info(SEARCH_ID, ORDER_SHA256))
        answer.found.sealed_candidates.CopyFrom(sealed)

    search = workshop.end(workshop.decide(), workshop.sign(workshop.answer(changed=garbled)))
    assert refused(workshop, search) == "CANDIDATES_UNOPENABLE"


def test_answer_without_any_result(workshop: SearchWorkshop) -> None:
    def empty(answer: SearchAnswer) -> None:
        answer.ClearField("found")

    search = workshop.end(workshop.decide(), workshop.sign(workshop.answer(changed=empty)))
    assert refused(workshop, search) == "CANDIDATES_UNOPENABLE"


def _one_left_out(candidates: CandidateList) -> None:
    del candidates.candidates[0]


def _another_above(candidates: CandidateList) -> None:
    candidates.candidates[1].above_threshold = True


def _another_search(candidates: CandidateList) -> None:
    candidates.search_id = OTHER_ID


def _another_gallery(candidates: CandidateList) -> None:
    candidates.gallery = "another-gallery"


@pytest.mark.parametrize(
    "change", [_one_left_out, _another_above, _another_search, _another_gallery]
)
def test_candidates_other_than_the_answer_says(
    workshop: SearchWorkshop, change: Callable[[CandidateList], None]
) -> None:
    candidates = workshop.candidates()
    change(candidates)
    search = workshop.end(workshop.decide(), workshop.sign(workshop.answer(candidates)))
    assert refused(workshop, search) == "ANSWER_MISMATCH"
