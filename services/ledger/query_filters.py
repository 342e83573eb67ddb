"""Translates what query.proto asks for into questions to the index, and values into text."""

import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from countersign.ledger.v1 import query_pb2 as pb
from countersign.ledger.v1.disclosure_pb2 import ReadRequestsRequest
from countersign.type.v1 import circumstances_pb2, decision_pb2, search_pb2
from ledger.questions import Dimension, DutyState, EndState, Question, Role, ShoppingQuestion
from ledger.requests import invalid, known_index
from shared.entry_facts import Claim, kind_text, short_name
from shared.kinds import KINDS, kind_of

_ROLES: Final = {
    pb.AGENCY_ROLE_ORIGIN: Role.ORIGIN,
    pb.AGENCY_ROLE_BENEFICIARY: Role.BENEFICIARY,
    pb.AGENCY_ROLE_OPERATOR: Role.OPERATOR,
    pb.AGENCY_ROLE_GALLERY_OWNER: Role.GALLERY_OWNER,
    pb.AGENCY_ROLE_CALLER: Role.CALLER,
}

_DIMENSIONS: Final = {
    number: Dimension[{"OBLIGATION": "DUTY", "OBLIGATION_STATE": "DUTY_STATE"}.get(name, name)]
    for number in pb.Dimension.values()
    if (name := short_name(pb.Dimension, number))
}

ALIKE: Final = (
    *(Dimension.BENEFICIARY_AGENCY, Dimension.PURPOSE, Dimension.OFFENCE, Dimension.SEVERITY),
    *(Dimension.SUSPICION, Dimension.PROVENANCE, Dimension.CAPTURE_MODE),
)
"""Facts in which two attempts are like each other, unless fewer are asked for."""
DAY_US: Final = 86_400_000_000

_ENUMS: Final[dict[Dimension, Any]] = {
    Dimension.GALLERY_CLASS: search_pb2.GalleryClass,
    Dimension.PURPOSE: search_pb2.Purpose,
    Dimension.SEVERITY: search_pb2.OffenceSeverity,
    Dimension.SUSPICION: search_pb2.SuspicionLevel,
    Dimension.PROVENANCE: search_pb2.ProbeProvenance,
    Dimension.CAPTURE_MODE: search_pb2.CaptureMode,
    Dimension.ROUTE: circumstances_pb2.RequestRoute,
    Dimension.PROTECTED_BASIS: circumstances_pb2.ProtectedBasis,
    Dimension.PROBE_EDIT: circumstances_pb2.ProbeEdit,
    Dimension.INVESTIGATION: circumstances_pb2.InvestigationStage,
    Dimension.CHARGE_STATUS: circumstances_pb2.ChargeStatus,
    Dimension.INSTRUMENT: circumstances_pb2.InstrumentKind,
    Dimension.OUTCOME: decision_pb2.DecisionOutcome,
    Dimension.END_STATE: pb.EndState,
    Dimension.DUTY_STATE: pb.ObligationState,
}


def question_of(
    wanted: pb.EntryFilter, size: int, indexes: Collection[int] | None = None
) -> Question:
    """The question for a tree of this size; raises InvalidRequest."""
    return Question(
        size=size,
        start_index=known_index(wanted.start_index, "filter.start_index"),
        end_index=known_index(wanted.end_index, "filter.end_index") or None,
        from_us=micros(wanted, "recorded_from"),
        until_us=micros(wanted, "recorded_until"),
        agency=wanted.agency,
        role=_ROLES.get(wanted.agency_role),
        jurisdiction=wanted.jurisdiction,
        kinds=tuple(_kind(name) for name in wanted.kinds),
        search_id=wanted.search_id,
        system=wanted.system,
        gallery=wanted.gallery,
        gallery_classes=tuple(wanted.gallery_classes),
        purposes=tuple(wanted.purposes),
        offence=wanted.offence,
        severities=tuple(wanted.severities),
        suspicions=tuple(wanted.suspicions),
        routes=tuple(wanted.routes),
        protected_bases=tuple(wanted.protected_bases),
        probe_edits=tuple(wanted.probe_edits),
        investigations=tuple(wanted.investigations),
        charge_statuses=tuple(wanted.charge_statuses),
        instruments=tuple(wanted.instruments),
        emergency=_claim(wanted),
        outcome=wanted.outcome,
        rule=wanted.rule_id,
        citation=wanted.citation,
        reason=wanted.reason,
        end_state=EndState(wanted.end_state) if wanted.end_state else None,
        duty=wanted.obligation,
        duty_state=DutyState(wanted.obligation_state) if wanted.obligation_state else None,
        indexes=None if indexes is None else tuple(indexes),
    )


def shopping_question_of(
    wanted: pb.FindRouteShoppingRequest, size: int, start: int, indexes: Collection[int] | None
) -> ShoppingQuestion:
    """The question for a tree of this size, from a permit on."""
    within_us = DAY_US
    if wanted.HasField("within"):
        within_us = wanted.within.seconds * 1_000_000 + wanted.within.nanos // 1000
    return ShoppingQuestion(
        size=size,
        start_index=start,
        from_us=micros(wanted, "recorded_from"),
        until_us=micros(wanted, "recorded_until"),
        within_us=within_us,
        agency=wanted.origin_agency,
        alike=dimensions_of(wanted.alike_in) or ALIKE,
        routes_min=wanted.refused_routes_min or 1,
        indexes=None if indexes is None else tuple(indexes),
    )


def dimensions_of(group_by: Iterable[pb.Dimension.ValueType]) -> tuple[Dimension, ...]:
    """What is to be grouped by; the door has seen to it that each is known."""
    return tuple(_DIMENSIONS[one] for one in group_by)


def text_of(dimension: Dimension, value: str | int | None) -> str:
    """A value of a dimension as text; empty where there is none."""
    if value is None:
        return ""
    if dimension is Dimension.KIND:
        return kind_text(int(value))
    if dimension is Dimension.EMERGENCY:
        return Claim(int(value)).name if value else ""
    if dimension in _ENUMS:
        return short_name(_ENUMS[dimension], int(value))
    if dimension is Dimension.DAY:
        day = f"{value:08}"
        return f"{day[:4]}-{day[4:6]}-{day[6:]}"
    if dimension is Dimension.MONTH:
        month = f"{value:06}"
        return f"{month[:4]}-{month[4:]}"
    return str(value)


def public_json(wanted: pb.EntryFilter) -> str:
    """The filter as canonical JSON, without the value that only openings hold, and without who asks."""
    public = pb.EntryFilter()
    public.CopyFrom(wanted)
    for private in ("value", "reason", "request_id", "officer_token"):
        public.opening.ClearField(private)
    if not wanted.HasField("opening"):
        public.ClearField("opening")
    document = MessageToDict(public, preserving_proto_field_name=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _kind(name: str) -> int:
    kind = kind_of(name)
    if kind is None:
        raise invalid("filter.kinds", f"{name} is not one of {', '.join(KINDS)}, nor a number")
    return kind


def _claim(wanted: pb.EntryFilter) -> int:
    if not wanted.HasField("emergency"):
        return 0
    return Claim.CLAIMED if wanted.emergency else Claim.NOT_CLAIMED


def micros(
    wanted: pb.EntryFilter | pb.FindRouteShoppingRequest | ReadRequestsRequest, name: str
) -> int | None:
    """A bound in microseconds. Entries are recorded in whole ones: a bound within one is the next."""
    if not wanted.HasField(name):  # type: ignore[arg-type]  # one of two names
        return None
    bound = getattr(wanted, name)
    return int(bound.seconds) * 1_000_000 - (-int(bound.nanos) // 1000)
