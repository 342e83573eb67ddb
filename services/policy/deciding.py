"""Answers what the directives say of one search, and tells the operator of what could not be told."""

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from countersign.policy.v1.policy_pb2 import (
    EvaluateBatchRequest,
    EvaluateBatchResponse,
    EvaluateRequest,
    EvaluateResponse,
    Parties,
)
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Seat, VerdictOutcome
from directive.elsewhere import Elsewhere
from directive.evaluate import seat_name
from directive.question import Fault
from policy.applied import Current
from shared import telemetry
from shared.errors import FieldViolation, InvalidRequest
from shared.registry import Registry

log = logging.getLogger(__name__)

BATCH_MAX: Final = 64
"""An eighth of a second of work at worst, in which nobody else is heard."""
INCIDENTS: Final = frozenset({Fault.EVALUATION_ERROR, Fault.NO_DECISION})
"""Faults of ours or of a directive, not of the request: somebody must look."""

_LAW: Final = Seat.SEAT_JURISDICTION

_duration = telemetry.meter.create_histogram(
    "countersign.policy.evaluation.duration",
    unit="s",
    description="Time to work out one decision",
    explicit_bucket_boundaries_advisory=telemetry.DURATION_BUCKETS_S,
)
_verdicts = telemetry.meter.create_counter(
    "countersign.policy.verdicts", unit="{verdict}", description="Verdicts by outcome and fault"
)
_rules = telemetry.meter.create_counter(
    "countersign.policy.rules",
    unit="{verdict}",
    description="Verdicts by the published rule that determined them",
)


class Deciding:
    """Works out decisions. Takes some milliseconds of CPU each and never waits."""

    def __init__(
        self, current: Current, catch_up: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """`catch_up` hears what the ledger has by now; None when directives are files."""
        self._current = current
        self._catch_up = catch_up
        # From 0, so that the very first incident is a rise that an alert sees.
        for fault in INCIDENTS:
            _verdicts.add(0, {"outcome": "cannot_tell", "fault": fault})

    async def evaluate(self, request: EvaluateRequest) -> EvaluateResponse:
        """The decision with the parties; raises InvalidRequest, and Unavailable while rules are unknown."""
        missing = [name for name in ("facts", "at") if not request.HasField(name)]
        if missing or not request.officer:
            missing += [] if request.officer else ["officer"]
            raise InvalidRequest(
                "INVALID_REQUEST",
                "the request lacks a field",
                violations=[FieldViolation(name, "is required") for name in missing],
            )
        at = _moment(request.at)
        applied = self._current()
        if request.HasField("documents_index") and self._catch_up is not None:
            known = applied.documents_index
            if known is None or known < request.documents_index:
                await self._catch_up()
                applied = self._current()
        started = time.perf_counter()
        elsewhere = Elsewhere.of(request.peer) if request.HasField("peer") else None
        decision = applied.evaluator.evaluate(request.facts, request.officer, at, elsewhere)
        if applied.documents_index is not None:
            decision.documents_index = applied.documents_index
        outcome = DecisionOutcome.Name(decision.outcome).removeprefix("DECISION_OUTCOME_").lower()
        _duration.record(time.perf_counter() - started, {"outcome": outcome})
        _tell(request.facts.search_id, decision)
        response = EvaluateResponse(parties=_parties(applied.registry, request, decision))
        # Not by the constructor, which would have it serialised and read again.
        response.decision.CopyFrom(decision)
        return response

    async def evaluate_batch(self, batch: EvaluateBatchRequest) -> EvaluateBatchResponse:
        """The decisions; raises InvalidRequest when one of the requests is not acceptable."""
        if not 1 <= len(batch.requests) <= BATCH_MAX:
            raise InvalidRequest(
                "INVALID_REQUEST",
                "the batch has the wrong size",
                violations=[FieldViolation("requests", f"must be 1 to {BATCH_MAX}")],
            )
        together = EvaluateBatchResponse()
        for request in batch.requests:
            together.responses.add().CopyFrom(await self.evaluate(request))
        return together


def _parties(registry: Registry, request: EvaluateRequest, decision: Decision) -> Parties:
    parties = registry.parties(request.facts)
    return Parties(
        origin_agency=parties.origin,
        beneficiary_agency=parties.beneficiary or "",
        operator_agency=parties.operator or "",
        gallery_owner=parties.gallery_owner or "",
        jurisdictions=[v.party for v in decision.verdicts if v.seat == _LAW and v.party],
        gallery_class=parties.gallery_class,
    )


def _moment(at: Timestamp) -> datetime:
    try:
        return at.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            "INVALID_REQUEST",
            "the time is out of range",
            violations=[FieldViolation("at", "is not a time between the years 1 and 9999")],
        ) from error


def _tell(search_id: str, decision: Decision) -> None:
    for verdict in decision.verdicts:
        if verdict.asked_at:
            continue  # nothing that was said here: a peer's words are no labels of ours
        outcome = VerdictOutcome.Name(verdict.outcome).removeprefix("VERDICT_OUTCOME_").lower()
        _verdicts.add(1, {"outcome": outcome, "fault": verdict.faults[0] if verdict.faults else ""})
        for rule in verdict.rules:
            _rules.add(1, {"outcome": outcome, "rule": rule.id})
        if INCIDENTS.intersection(verdict.faults):
            log.error(
                "a directive could not be applied",
                extra={
                    "fields": {
                        "search": search_id,
                        "party": verdict.party,
                        "seat": seat_name(verdict.seat),
                        "faults": list(verdict.faults),
                        "directives": [version.name for version in verdict.directives],
                    }
                },
            )
