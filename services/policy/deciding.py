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
    OfficerQuestion,
    Parties,
)
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Seat, VerdictOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from directive.elsewhere import Elsewhere
from directive.evaluate import seat_name
from directive.question import Fault
from policy.applied import Applied, Current
from shared import telemetry
from shared.errors import FieldViolation, InvalidRequest, Unavailable
from shared.registry import PartiesOf, Registry

log = logging.getLogger(__name__)

BATCH_MAX: Final = 64
"""An eighth of a second of work at worst, in which nobody else is heard."""
PARTIES_KEPT_MAX: Final = 4096
"""Some hundred bytes each. A department asks of a few systems and galleries; names may be anything."""
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
        self._registry: Registry | None = None
        self._parties_of: dict[tuple[str | None, ...], PartiesOf] = {}
        # From 0, so that the very first incident is a rise that an alert sees.
        for fault in INCIDENTS:
            _verdicts.add(0, {"outcome": "cannot_tell", "fault": fault})

    async def evaluate(self, request: EvaluateRequest) -> EvaluateResponse:
        """The decision with the parties; raises InvalidRequest, and Unavailable while rules are unknown."""
        response = EvaluateResponse()
        await self._evaluate(request, response)
        return response

    async def evaluate_batch(self, batch: EvaluateBatchRequest) -> EvaluateBatchResponse:
        """The decisions; raises InvalidRequest when one of the requests is not acceptable."""
        if not 1 <= len(batch.requests) + len(batch.officers) <= BATCH_MAX:
            raise InvalidRequest(
                "INVALID_REQUEST",
                "the batch has the wrong size",
                violations=[FieldViolation("requests", f"must be 1 to {BATCH_MAX}")],
            )
        together = EvaluateBatchResponse()
        for request in batch.requests:
            await self._evaluate(request, together.responses.add())
        for asked in batch.officers:
            together.officers.add(known=await self._is_officer(asked))
        return together

    async def _is_officer(self, asked: OfficerQuestion) -> bool:
        index = asked.documents_index if asked.HasField("documents_index") else None
        applied = await self._reaching(index)
        # No entry of the ledger shows by what this was answered, so it is answered by no less.
        if index is not None and (
            applied.documents_index is None or applied.documents_index < index
        ):
            raise Unavailable(
                "REGISTRY_STALE", f"document {index} has not been heard of", retry_after_s=1
            )
        officer = applied.registry.officers.get(asked.officer)
        return officer is not None and officer.agency == asked.agency

    async def _reaching(self, documents_index: int | None) -> Applied:
        """What counts, with this document in it if the ledger has it. Raises Unavailable."""
        applied = self._current()
        if documents_index is not None and self._catch_up is not None:
            known = applied.documents_index
            if known is None or known < documents_index:
                await self._catch_up()
                applied = self._current()
        return applied

    async def _evaluate(self, request: EvaluateRequest, response: EvaluateResponse) -> None:
        """Answers in place: a message that is put into another is copied."""
        if not (request.officer and request.HasField("facts") and request.HasField("at")):
            raise _lacking(request)
        at = _moment(request.at)
        index = request.documents_index if request.HasField("documents_index") else None
        applied = await self._reaching(index)
        started = time.perf_counter()
        elsewhere = Elsewhere.of(request.peer) if request.HasField("peer") else None
        decision = applied.evaluator.evaluate(request.facts, request.officer, at, elsewhere)
        if applied.documents_index is not None:
            decision.documents_index = applied.documents_index
        if telemetry.switch.on:
            outcome = _word(DecisionOutcome.Name(decision.outcome), "DECISION_OUTCOME_")
            _duration.record(time.perf_counter() - started, {"outcome": outcome})
        _tell(request.facts.search_id, decision)
        # Not by the constructor, which would have it serialised and read again.
        response.decision.CopyFrom(decision)
        _name_parties(response.parties, self._parties(applied.registry, request.facts), decision)

    def _parties(self, registry: Registry, facts: SearchFacts) -> PartiesOf:
        """Who must be asked, kept: it follows from four names, and the registry never changes."""
        beneficiary = facts.beneficiary_agency if facts.HasField("beneficiary_agency") else None
        names = facts.origin_agency, beneficiary, facts.system, facts.gallery
        if registry is not self._registry or len(self._parties_of) >= PARTIES_KEPT_MAX:
            self._registry, self._parties_of = registry, {}
        parties = self._parties_of.get(names)
        if parties is None:
            parties = self._parties_of[names] = registry.parties(facts)
        return parties


def _lacking(request: EvaluateRequest) -> InvalidRequest:
    missing = [name for name in ("facts", "at") if not request.HasField(name)]
    missing += [] if request.officer else ["officer"]
    return InvalidRequest(
        "INVALID_REQUEST",
        "the request lacks a field",
        violations=[FieldViolation(name, "is required") for name in missing],
    )


def _name_parties(named: Parties, parties: PartiesOf, decision: Decision) -> None:
    named.origin_agency = parties.origin
    named.beneficiary_agency = parties.beneficiary or ""
    named.operator_agency = parties.operator or ""
    named.gallery_owner = parties.gallery_owner or ""
    named.gallery_class = parties.gallery_class
    named.jurisdictions.extend(
        [v.party for v in decision.verdicts if v.seat == _LAW and v.party],
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


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _tell(search_id: str, decision: Decision) -> None:
    for verdict in decision.verdicts:
        faults = verdict.faults
        if not (faults or telemetry.switch.on) or verdict.asked_at:
            continue  # what was said elsewhere: a peer's words are no labels of ours
        outcome = _word(VerdictOutcome.Name(verdict.outcome), "VERDICT_OUTCOME_")
        _verdicts.add(1, {"outcome": outcome, "fault": faults[0] if faults else ""})
        for rule in verdict.rules:
            _rules.add(1, {"outcome": outcome, "rule": rule.id})
        if INCIDENTS.intersection(faults):
            log.error(
                "a directive could not be applied",
                extra={
                    "fields": {
                        "search": search_id,
                        "party": verdict.party,
                        "seat": seat_name(verdict.seat),
                        "faults": list(faults),
                        "directives": [version.name for version in verdict.directives],
                    }
                },
            )
