"""Each way to get a connector to run what was not permitted, by name, and the check that stops it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from connector.proof import CLOCK_SKEW_MAX, VALIDITY_MAX, OrderRefused, read_signed, verify
from countersign.connector.v1.connector_pb2 import FailureReason, SearchOrder, SignedOrder
from countersign.ledger.v1.entry_pb2 import Entry, SearchFailed
from countersign.type.v1.decision_pb2 import DecisionOutcome, Receipt, VerdictOutcome
from countersign.type.v1.search_pb2 import BoundRequest, Purpose, SearchFacts
from shared.signing import ANSWER_CONTEXT, SigningKey
from support.orders import (
    GALLERY,
    NOW,
    SEARCH_ID,
    OrderWorkshop,
    log_signer,
    receipt,
    verdict,
)
from support.witnesses import COSIGNER
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.policy import Policy

pytestmark = pytest.mark.promise(2)

DIRECTIVES = Path(__file__).resolve().parents[2] / "directives"
OTHER_SEARCH_ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(name="workshop")
def _workshop() -> OrderWorkshop:
    return OrderWorkshop()


def check_that_stops(
    workshop: OrderWorkshop, signed: SignedOrder, now: datetime = NOW
) -> tuple[str, str]:
    """Which check refuses the order, and the reason that the answer gives."""
    expected = workshop.expectations()
    with pytest.raises(OrderRefused) as refused:
        verify(read_signed(signed, expected.broker_keys), expected, now)
    reason = FailureReason.Name(refused.value.reason).removeprefix("FAILURE_REASON_")
    return refused.value.check, reason


def test_sound_order_verifies(workshop: OrderWorkshop) -> None:
    expected = workshop.expectations()
    signed = workshop.sign(workshop.order())

    order = verify(read_signed(signed, expected.broker_keys), expected, NOW)

    assert order.search_id == SEARCH_ID
    assert order.facts.gallery == GALLERY
    assert order.answer_public_key == workshop.requester.public_key


class TestForgedSignatures:
    """The order is not the broker's."""

    def test_order_signed_by_a_stranger(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order(), SigningKey.generate())

        assert check_that_stops(workshop, signed) == ("ORDER_SIGNATURE", "ORDER_REJECTED")

    def test_stranger_who_claims_the_brokers_key(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order(), SigningKey.generate())
        signed.key_id = workshop.broker.key_id

        assert check_that_stops(workshop, signed)[0] == "ORDER_SIGNATURE"

    def test_order_without_a_signature(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        signed.signature = b""

        assert check_that_stops(workshop, signed)[0] == "ORDER_SIGNATURE"

    def test_order_changed_after_signing(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        order = SearchOrder.FromString(signed.order)
        order.deadline.FromDatetime(NOW + timedelta(days=1))
        signed.order = order.SerializeToString()

        assert check_that_stops(workshop, signed)[0] == "ORDER_SIGNATURE"

    def test_brokers_signature_of_another_kind(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        signed.signature = workshop.broker.sign(ANSWER_CONTEXT, signed.order)

        assert check_that_stops(workshop, signed)[0] == "ORDER_SIGNATURE"

    def test_signed_bytes_that_are_no_order(self, workshop: OrderWorkshop) -> None:
        assert check_that_stops(workshop, workshop.sign(SearchOrder()))[0] == "ORDER_MALFORMED"


class TestMisdirectedOrders:
    """The order is the broker's, and is not for here and now."""

    def test_order_for_another_system(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        order.system = "facefind"

        assert check_that_stops(workshop, workshop.sign(order))[0] == "WRONG_SYSTEM"

    def test_request_for_another_system(self, workshop: OrderWorkshop) -> None:
        def elsewhere(facts: SearchFacts) -> None:
            facts.system = "facefind"

        order = workshop.order(facts_changed=elsewhere)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_MISMATCH"

    def test_request_for_a_gallery_that_is_not_searched_here(self, workshop: OrderWorkshop) -> None:
        def elsewhere(facts: SearchFacts) -> None:
            facts.gallery = "driver-licences"

        order = workshop.order(facts_changed=elsewhere)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "WRONG_GALLERY"

    def test_expired_order(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        at_the_deadline = NOW + timedelta(minutes=15)

        stopped = check_that_stops(workshop, signed, at_the_deadline)

        assert stopped == ("ORDER_EXPIRED", "ORDER_EXPIRED")

    def test_order_from_the_future(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        before = NOW - CLOCK_SKEW_MAX - timedelta(seconds=1)

        assert check_that_stops(workshop, signed, before)[0] == "ORDER_TIMES"

    def test_order_that_would_be_valid_for_ever(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        order.deadline.FromDatetime(NOW + VALIDITY_MAX + timedelta(seconds=1))

        assert check_that_stops(workshop, workshop.sign(order))[0] == "ORDER_TIMES"

    @pytest.mark.parametrize("name", ["deadline", "issued_at"])
    def test_order_without_a_time(
        self, workshop: OrderWorkshop, name: Literal["deadline", "issued_at"]
    ) -> None:
        order = workshop.order()
        order.ClearField(name)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "ORDER_MALFORMED"

    @pytest.mark.parametrize("time", [[2**62, 0], [-62_135_596_801, 0], [0, -1], [0, 10**9]])
    def test_order_at_an_impossible_time(self, workshop: OrderWorkshop, time: list[int]) -> None:
        order = workshop.order()
        seconds, order.deadline.nanos = time
        order.deadline.seconds = seconds or order.deadline.seconds

        assert check_that_stops(workshop, workshop.sign(order))[0] == "ORDER_TIMES"


class TestForgedReceipts:
    """The decision is not in the ledger."""

    def test_order_without_a_receipt(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        order.ClearField("decision_receipt")

        assert check_that_stops(workshop, workshop.sign(order)) == (
            "RECEIPT_INVALID",
            "ORDER_REJECTED",
        )

    def test_receipt_of_another_log_under_the_same_name(self, workshop: OrderWorkshop) -> None:
        order = workshop.order(log=log_signer())

        assert check_that_stops(workshop, workshop.sign(order))[0] == "RECEIPT_INVALID"

    def test_leaf_changed_after_it_was_recorded(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        entry = Entry.FromString(order.decision_receipt.leaf)
        entry.recorded_by = "someone else"
        order.decision_receipt.leaf = entry.SerializeToString()

        assert check_that_stops(workshop, workshop.sign(order))[0] == "RECEIPT_INVALID"

    def test_receipt_that_claims_another_index(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        order.decision_receipt.index = 0

        assert check_that_stops(workshop, workshop.sign(order))[0] == "RECEIPT_INVALID"

    @pytest.mark.parametrize("proof", ["", "no proof", "c2sp.org/tlog-proof@v1\nindex 1\n\n"])
    def test_proof_that_is_none(self, workshop: OrderWorkshop, proof: str) -> None:
        order = workshop.order()
        order.decision_receipt.tlog_proof = proof

        assert check_that_stops(workshop, workshop.sign(order))[0] == "RECEIPT_INVALID"

    def test_recorded_leaf_that_is_no_entry(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        order.decision_receipt.CopyFrom(receipt(b"\xff\xff no entry", workshop.log))

        assert check_that_stops(workshop, workshop.sign(order))[0] == "DECISION_MISMATCH"


class TestWitnesses:
    """The decision is in the ledger, and the connector wants others to have seen that ledger."""

    @pytest.fixture(name="workshop")
    @staticmethod
    def _workshop() -> OrderWorkshop:
        workshop = OrderWorkshop(cosigners=[COSIGNER])
        workshop.witnesses = Policy.parse(
            f"witness w1 {COSIGNER.verifier.vkey}\nquorum w1\n"
        ).with_logs([workshop.log.verifier])
        return workshop

    def test_receipt_with_the_quorum(self, workshop: OrderWorkshop) -> None:
        expected = workshop.expectations()
        signed = read_signed(workshop.sign(workshop.order()), expected.broker_keys)

        assert verify(signed, expected, NOW).search_id == SEARCH_ID

    def test_receipt_that_nobody_cosigned(self, workshop: OrderWorkshop) -> None:
        workshop.cosigners = []

        assert check_that_stops(workshop, workshop.sign(workshop.order())) == (
            "RECEIPT_UNWITNESSED",
            "ORDER_REJECTED",
        )

    def test_receipt_that_a_stranger_cosigned(self, workshop: OrderWorkshop) -> None:
        name = COSIGNER.verifier.name
        stranger = Cosigner.from_seed(name, b"s" * 32, CosignatureKind.ED25519)
        workshop.cosigners = [stranger]

        stopped = check_that_stops(workshop, workshop.sign(workshop.order()))

        assert stopped[0] == "RECEIPT_UNWITNESSED"

    def test_cosignature_of_another_tree(self, workshop: OrderWorkshop) -> None:
        other = workshop.order(search_id=OTHER_SEARCH_ID).decision_receipt.tlog_proof
        workshop.cosigners = []
        order = workshop.order()
        order.decision_receipt.tlog_proof += other.splitlines(keepends=True)[-1]

        assert check_that_stops(workshop, workshop.sign(order))[0] == "RECEIPT_INVALID"

    def test_witnesses_do_not_stand_in_for_the_log(self, workshop: OrderWorkshop) -> None:
        order = workshop.order(log=log_signer())

        assert check_that_stops(workshop, workshop.sign(order))[0] == "RECEIPT_INVALID"


def _refused(entry: Entry) -> None:
    entry.search_decided.decision.outcome = DecisionOutcome.DECISION_OUTCOME_REFUSED


def _without_outcome(entry: Entry) -> None:
    entry.search_decided.decision.ClearField("outcome")


def _without_verdicts(entry: Entry) -> None:
    del entry.search_decided.decision.verdicts[:]


def _one_forbids(entry: Entry) -> None:
    forbid = verdict(VerdictOutcome.VERDICT_OUTCOME_FORBID)
    entry.search_decided.decision.verdicts.append(forbid)


def _one_cannot_tell(entry: Entry) -> None:
    doubt = verdict(VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL)
    entry.search_decided.decision.verdicts.append(doubt)


def _of_another_search(entry: Entry) -> None:
    entry.search_id = OTHER_SEARCH_ID


def _a_dry_run(entry: Entry) -> None:
    decision = entry.search_decided.decision
    entry.search_checked.decision.CopyFrom(decision)


def _an_end(entry: Entry) -> None:
    entry.search_failed.CopyFrom(SearchFailed())


def _shorter_deadline(entry: Entry) -> None:
    entry.search_decided.deadline.FromDatetime(NOW + timedelta(minutes=14))


def _without_deadline(entry: Entry) -> None:
    entry.search_decided.ClearField("deadline")


def _of_another_request(entry: Entry) -> None:
    entry.search_decided.request_sha256 = b"x" * 32


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_refused, "DECISION_NOT_PERMITTED"),
        (_without_outcome, "DECISION_NOT_PERMITTED"),
        (_without_verdicts, "DECISION_NOT_PERMITTED"),
        (_one_forbids, "DECISION_NOT_PERMITTED"),
        (_one_cannot_tell, "DECISION_NOT_PERMITTED"),
        (_of_another_search, "DECISION_MISMATCH"),
        (_a_dry_run, "DECISION_MISMATCH"),
        (_an_end, "DECISION_MISMATCH"),
        (_shorter_deadline, "DEADLINE_MISMATCH"),
        (_without_deadline, "DEADLINE_MISMATCH"),
        (_of_another_request, "REQUEST_MISMATCH"),
    ],
)
def test_recorded_entry_that_does_not_permit_this(
    workshop: OrderWorkshop, change: Callable[[Entry], None], check: str
) -> None:
    order = workshop.order(entry_changed=change)

    assert check_that_stops(workshop, workshop.sign(order)) == (check, "ORDER_REJECTED")


class TestSwappedContents:
    """The decision is sound, and the order carries something else."""

    def test_replayed_approval_of_an_earlier_search(self, workshop: OrderWorkshop) -> None:
        approval = Receipt.FromString(workshop.order().decision_receipt.SerializeToString())
        order = workshop.order(search_id=OTHER_SEARCH_ID)
        order.decision_receipt.CopyFrom(approval)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "DECISION_MISMATCH"

    def test_facts_changed_after_the_decision(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        request = BoundRequest.FromString(order.bound_request)
        request.facts.purpose = Purpose.PURPOSE_CROWD_ANALYSIS
        order.bound_request = request.SerializeToString()

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_MISMATCH"

    def test_answer_key_changed_after_the_decision(self, workshop: OrderWorkshop) -> None:
        order = workshop.order()
        request = BoundRequest.FromString(order.bound_request)
        request.answer_public_key = b"e" * 32
        order.bound_request = request.SerializeToString()

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_MISMATCH"

    def test_request_of_another_search_that_was_decided_on(self, workshop: OrderWorkshop) -> None:
        def of_another(facts: SearchFacts) -> None:
            facts.search_id = OTHER_SEARCH_ID

        order = workshop.order(facts_changed=of_another)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_MISMATCH"

    def test_swapped_probe(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        workshop.order(probe=b"another's face")
        signed.sealed_probe.CopyFrom(workshop.sealed_probe)

        assert check_that_stops(workshop, signed)[0] == "PROBE_MISMATCH"

    def test_order_without_a_probe(self, workshop: OrderWorkshop) -> None:
        signed = workshop.sign(workshop.order())
        signed.ClearField("sealed_probe")

        assert check_that_stops(workshop, signed)[0] == "PROBE_MISMATCH"

    @pytest.mark.parametrize("nanos", [0, -1], ids=["too many", "a time that is none"])
    def test_request_that_breaks_its_contract(self, workshop: OrderWorkshop, nanos: int) -> None:
        def wrong(facts: SearchFacts) -> None:
            facts.candidates_max = 50 if nanos else 51
            facts.circumstances.emergency.began_at.nanos = nanos

        order = workshop.order(facts_changed=wrong)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_INVALID"

    def test_request_without_an_officer(self, workshop: OrderWorkshop) -> None:
        def nobody(request: BoundRequest) -> None:
            request.officer = ""

        order = workshop.order(request_changed=nobody)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_INVALID"

    def test_request_with_an_answer_key_that_is_none(self, workshop: OrderWorkshop) -> None:
        def short(request: BoundRequest) -> None:
            request.answer_public_key = b"short"

        order = workshop.order(request_changed=short)

        assert check_that_stops(workshop, workshop.sign(order))[0] == "REQUEST_INVALID"
