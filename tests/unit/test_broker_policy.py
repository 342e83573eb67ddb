"""A decision that does not follow from its verdicts is nobody's: the broker goes by neither."""

from collections.abc import Sequence
from typing import Any

import pytest

from broker.policy import Policy
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1 import decision_pb2 as d
from shared.errors import Broken

PERMITTED = d.DECISION_OUTCOME_PERMITTED
REFERRED = d.DECISION_OUTCOME_REFERRED
REFUSED = d.DECISION_OUTCOME_REFUSED
PERMIT = d.VERDICT_OUTCOME_PERMIT
FORBID = d.VERDICT_OUTCOME_FORBID


class PolicyService:
    """Stands for the bus with a policy service behind it, which says what it is told to."""

    def __init__(self, decision: d.Decision) -> None:
        self._decision = decision

    async def request(self, *_: Any) -> pb.EvaluateBatchResponse:
        """Its answer to one question."""
        answer = pb.EvaluateBatchResponse()
        answer.responses.add().decision.CopyFrom(self._decision)
        return answer


def decision(
    outcome: d.DecisionOutcome.ValueType, verdicts: Sequence[d.VerdictOutcome.ValueType]
) -> d.Decision:
    decided = d.Decision(outcome=outcome)
    for verdict in verdicts:
        decided.verdicts.add(outcome=verdict, seat=d.SEAT_ORIGIN)
    return decided


async def answered(decided: d.Decision, refer: bool) -> d.Decision:
    policy = Policy(PolicyService(decided))  # type: ignore[arg-type]  # stands in for the real bus
    request = pb.EvaluateRequest(peer=pb.Peer(trust_domain="north.example", refer=refer))
    return (await policy.evaluate(request)).decision


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("outcome", "verdicts", "refer"),
    [
        (PERMITTED, [PERMIT, FORBID], False),
        (PERMITTED, [PERMIT, d.VERDICT_OUTCOME_CANNOT_TELL], False),
        (PERMITTED, [PERMIT, d.VERDICT_OUTCOME_UNSPECIFIED], False),
        (PERMITTED, [], False),
        (PERMITTED, [PERMIT], True),
        (REFERRED, [PERMIT], False),
        (REFERRED, [PERMIT], True),
        (d.DECISION_OUTCOME_UNSPECIFIED, [PERMIT], False),
    ],
)
async def test_a_decision_that_does_not_follow_from_its_verdicts_is_not_believed(
    outcome: d.DecisionOutcome.ValueType, verdicts: list[d.VerdictOutcome.ValueType], refer: bool
) -> None:
    with pytest.raises(Broken) as broken:
        await answered(decision(outcome, verdicts), refer)
    assert broken.value.reason == "POLICY_ANSWER"


@pytest.mark.parametrize(("outcome", "verdict"), [(PERMITTED, PERMIT), (REFUSED, FORBID)])
async def test_a_decision_that_follows_from_its_verdicts_is_given(
    outcome: d.DecisionOutcome.ValueType, verdict: d.VerdictOutcome.ValueType
) -> None:
    decided = decision(outcome, [verdict])
    assert await answered(decided, refer=False) == decided
