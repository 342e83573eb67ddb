"""The broker's line to the policy service: questions gathered into few messages."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from broker.batching import Batcher, Bounds
from broker.record import is_permitted, is_referred
from countersign.policy.v1.policy_pb2 import (
    EvaluateBatchRequest,
    EvaluateBatchResponse,
    EvaluateRequest,
    EvaluateResponse,
    Peer,
)
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome
from shared.bus import Bus
from shared.errors import Broken, ServiceError, Unavailable

TIMEOUT_S: Final = 5
"""A decision takes milliseconds; this covers a restart of the policy service."""
BOUNDS: Final = Bounds(
    # Half of what the service takes: it looks at nothing else while it works on one message.
    items=32,
    # Questions are a few hundred bytes, answers a few kilobytes, and both well below the bus's bound.
    size=128 * 1024,
    waiting=4096,
    # What comes while it is being worked on goes together: the busier, the fuller the messages.
    messages=1,
    patience_s=TIMEOUT_S,
)

_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED
_REFUSED: Final = DecisionOutcome.DECISION_OUTCOME_REFUSED
_REFERRED: Final = DecisionOutcome.DECISION_OUTCOME_REFERRED


class Policy:
    """Asks for decisions over the bus."""

    def __init__(self, bus: Bus, under_way: Callable[[], int] = lambda: 0) -> None:
        """`under_way` gives how many searches are: the more, the longer a question waits for company."""
        self._bus = bus
        self._batcher = Batcher[EvaluateRequest, EvaluateResponse](
            "POLICY", self._send, BOUNDS, under_way
        )

    async def evaluate(
        self, request: EvaluateRequest, until: float | None = None
    ) -> EvaluateResponse:
        """The decision, which follows from its verdicts. Raises ServiceError.

        It is not begun after `until`, by the loop's clock.
        """
        evaluated = await self._batcher.ask(request, until)
        if not _follows(evaluated.decision, request.peer):
            raise Broken("POLICY_ANSWER", "the decision does not follow from its verdicts")
        return evaluated

    async def has_officer(
        self, agency: str, officer: str, documents_index: int | None, until: float | None = None
    ) -> bool:
        """Whether the registry has somebody as an officer of an agency. Raises Unavailable.

        It is not begun after `until`, by the loop's clock.
        """
        within_s = None if until is None else until - asyncio.get_running_loop().time()
        asked = EvaluateBatchRequest()
        asked.officers.add(agency=agency, officer=officer, documents_index=documents_index)
        try:
            told = await self._bus.request(
                "policy.evaluate", asked, EvaluateBatchResponse, TIMEOUT_S, within_s
            )
            (answer,) = told.officers
        except (ServiceError, ValueError) as error:
            raise Unavailable(
                "POLICY_UNAVAILABLE",
                "nobody could be asked whether this is an officer of yours; nothing is on record, try again",
                retry_after_s=1,
            ) from error
        return answer.known

    async def _send(
        self, requests: list[EvaluateRequest], within_s: float
    ) -> Sequence[EvaluateResponse]:
        batch = EvaluateBatchRequest()
        for request in requests:
            batch.requests.add().CopyFrom(request)
        response = await self._bus.request(
            "policy.evaluate", batch, EvaluateBatchResponse, TIMEOUT_S, within_s
        )
        return response.responses


def _follows(decision: Decision, peer: Peer) -> bool:
    outcome = decision.outcome
    if outcome == _PERMITTED:
        return is_permitted(decision) and not peer.refer
    if outcome == _REFERRED:
        return peer.refer and is_referred(decision, peer.trust_domain)
    return outcome == _REFUSED
