"""The operator agency's own directives, evaluated again by the connector, have the last word."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.own_directives import load_own_directives
from connector.proof import OrderRefused, read_signed, verify
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.type.v1.decision_pb2 import Verdict, VerdictOutcome
from countersign.type.v1.search_pb2 import BoundRequest, Purpose, SearchFacts
from shared.registry import Registry
from support.orders import (
    NOW,
    OPERATOR,
    OrderWorkshop,
    verdict,
)

pytestmark = pytest.mark.promise(2)

DIRECTIVES = Path(__file__).resolve().parents[2] / "directives"
OTHER_SEARCH_ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(name="workshop")
def _workshop() -> OrderWorkshop:
    return OrderWorkshop()


@pytest.mark.parametrize(
    "verdicts",
    [
        [],
        [verdict(VerdictOutcome.VERDICT_OUTCOME_FORBID)],
        [verdict(VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL)],
        [verdict(VerdictOutcome.VERDICT_OUTCOME_UNSPECIFIED)],
        [
            verdict(VerdictOutcome.VERDICT_OUTCOME_PERMIT),
            verdict(VerdictOutcome.VERDICT_OUTCOME_FORBID),
        ],
    ],
    ids=["none", "forbid", "cannot-tell", "unspecified", "one-seat-forbids"],
)
def test_own_agency_that_does_not_permit(
    workshop: OrderWorkshop, verdicts: Sequence[Verdict]
) -> None:
    expected = workshop.expectations(lambda _request, _now: verdicts)
    signed = read_signed(workshop.sign(workshop.order()), expected.broker_keys)

    with pytest.raises(OrderRefused) as refused:
        verify(signed, expected, NOW)

    assert refused.value.check == "OWN_DIRECTIVES"
    assert refused.value.reason == FailureReason.FAILURE_REASON_NOT_PERMITTED_HERE


class TestOwnDirectives:
    """The sheriff's directives, in the connector's own copy."""

    @pytest.fixture(name="judge", scope="class")
    @staticmethod
    def _judge() -> Callable[[BoundRequest, datetime], Sequence[Verdict]]:
        registry = Registry.load(DIRECTIVES / "demo-registry.toml")
        return load_own_directives(DIRECTIVES, registry, OPERATOR)

    def verdicts(
        self,
        judge: Callable[[BoundRequest, datetime], Sequence[Verdict]],
        change: Callable[[SearchFacts], None] = lambda _: None,
    ) -> list[str]:
        request = BoundRequest.FromString(OrderWorkshop().order(facts_changed=change).bound_request)
        found = judge(request, datetime.now(UTC))
        return [VerdictOutcome.Name(one.outcome) for one in found]

    def test_permits_what_the_directive_permits(
        self, judge: Callable[[BoundRequest, datetime], Sequence[Verdict]]
    ) -> None:
        outcomes = self.verdicts(judge)

        # Two seats: the sheriff runs the system and owns the gallery.
        assert outcomes == ["VERDICT_OUTCOME_PERMIT"] * 2

    def test_forbids_what_it_does_not(
        self, judge: Callable[[BoundRequest, datetime], Sequence[Verdict]]
    ) -> None:
        def crowd(facts: SearchFacts) -> None:
            facts.purpose = Purpose.PURPOSE_CROWD_ANALYSIS

        assert "VERDICT_OUTCOME_PERMIT" not in self.verdicts(judge, crowd)

    def test_cannot_tell_of_an_agency_that_it_does_not_know(
        self, judge: Callable[[BoundRequest, datetime], Sequence[Verdict]]
    ) -> None:
        def stranger(facts: SearchFacts) -> None:
            facts.origin_agency = "XX0000000"

        assert set(self.verdicts(judge, stranger)) == {"VERDICT_OUTCOME_CANNOT_TELL"}
