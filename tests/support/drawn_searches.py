"""Searches and rules drawn at random, and the world in which they are asked: for tests with Hypothesis."""

from datetime import UTC, timedelta
from functools import cache
from typing import Any

from hypothesis import strategies as st

from countersign.type.v1 import search_pb2
from countersign.type.v1.circumstances_pb2 import INSTRUMENT_KIND_NONE, Emergency, Instrument
from countersign.type.v1.search_pb2 import Offence, OffenceSeverity, SearchFacts
from shared.clock import stamp
from shared.registry import Registry
from support.circumstances import EXPIRES, circumstances, emergency, instrument
from support.directives import (
    BURBANK,
    FACEFIND,
    FORBID,
    LAPD,
    LASD,
    NOON,
    PERMIT,
    changed_registry,
    ordinary,
    vocabulary,
)

_FLAG = st.sampled_from([None, True, False])
_INSTRUMENTS = st.builds(
    instrument,
    kind=st.sampled_from([0, 1, 2, 3]),
    status=st.sampled_from([0, 1, 3, 3, 3]),
    issuer=st.sampled_from([0, 1, 4]),
    scope=st.sampled_from([0, 1, 3]),
    jurisdiction=st.sampled_from(["", "US-CA", "US", "XX"]),
    expires_at=st.sampled_from([None, stamp(EXPIRES), stamp(NOON)]),
    uses_left=st.sampled_from([None, 0, 1]),
    unlimited_uses=st.booleans(),
    never_expires=st.booleans(),
)
_EMERGENCIES = st.builds(
    emergency,
    claimed=st.booleans(),
    began_at=st.sampled_from([None, stamp(NOON), stamp(NOON - timedelta(hours=80))]),
    ratify_by=st.sampled_from([None, stamp(NOON), stamp(NOON + timedelta(hours=47))]),
)
CIRCUMSTANCES = st.builds(
    circumstances,
    route=st.sampled_from([None, 0, 1, 7, 99]),
    probe_edit=st.sampled_from([0, 1, 3]),
    protected_basis=st.sampled_from([None, 1, 2, 99]),
    investigation=st.sampled_from([None, 1, 2]),
    charge_status=st.sampled_from([None, 1, 2]),
    consent_given=_FLAG,
    asked_for_identity=_FLAG,
    request_form_attested=_FLAG,
    unsolicited=_FLAG,
    equivalent_statute=st.sampled_from(["", "18 Pa.C.S. s. 3701", "120"]),
    instrument=st.one_of(
        st.sampled_from([None, Instrument(), Instrument(kind=INSTRUMENT_KIND_NONE), instrument()]),
        _INSTRUMENTS,
    ),
    emergency=st.one_of(st.sampled_from([None, Emergency(), emergency()]), _EMERGENCIES),
)
_LAPSES = ("2026-05-01", "2026-06-02", "2026-09-01")
AGENCIES = [LAPD, LASD, BURBANK, FACEFIND]


@cache
def crowded() -> Registry:
    """The demonstration's registry with officers in every agency, and all that circumstances follow from."""
    certified = {f"of-{ori.lower()}-{day}": (ori, day) for ori in AGENCIES for day in _LAPSES}
    return changed_registry(
        officers={
            **{f"of-{ori.lower()}": {"agency": ori, "active": True} for ori in AGENCIES},
            **{
                name: {"agency": ori, "active": True, "certificates": {"LACRIS-FR": day}}
                for name, (ori, day) in certified.items()
            },
        },
        systems={"lacris": {"lowest_group_accuracy": 975}},
        galleries={"lacris-booking": {"origin": "criminal_proceedings"}},
        offence_sets={
            "robberies": {
                "title": "Robbery",
                "owner": "US-CA",
                "nibrs": ["120"],
                "statutes": ["18 Pa.C.S. s. 3701"],
            }
        },
    )


ORIS = st.sampled_from([*AGENCIES, LAPD, LAPD, "", "XX0000000", '"', "US-CA"])
OFFICERS = st.sampled_from([*sorted(crowded().officers), "nobody", "", "\\"])
TEXTS = st.one_of(st.sampled_from(["", "26-0001", "120", "11A"]), st.text(max_size=10))
MOMENTS = st.one_of(
    st.just(NOON),
    st.datetimes(timezones=st.just(UTC)),
    st.timedeltas(timedelta(days=-3000), timedelta(days=300)).map(lambda ago: NOON + ago),
)


def _numbers(enum: Any) -> st.SearchStrategy[int]:
    known = [number for number in enum.values() if number != 0]
    return st.one_of(*[st.sampled_from(known)] * 9, st.sampled_from([0, -1, 99]))


@st.composite
def searches(draw: st.DrawFn) -> SearchFacts:
    """Searches, most of them with known names and values."""
    system, gallery = draw(
        st.sampled_from(
            [("lacris", "lacris-booking")] * 3
            + [("facefind", "facefind-web"), ("lacris", "facefind-web"), ("", "ghost")]
        )
    )
    return ordinary(
        origin_agency=draw(ORIS),
        beneficiary_agency=draw(st.one_of(st.none(), ORIS)),
        system=system,
        gallery=gallery,
        purpose=draw(_numbers(search_pb2.Purpose)),
        suspicion=draw(_numbers(search_pb2.SuspicionLevel)),
        provenance=draw(_numbers(search_pb2.ProbeProvenance)),
        capture_mode=draw(_numbers(search_pb2.CaptureMode)),
        offence=Offence(
            nibrs_code=draw(TEXTS),
            statute=draw(TEXTS),
            attempt=draw(st.booleans()),
            severity=OffenceSeverity.ValueType(draw(_numbers(OffenceSeverity))),
        ),
        case_number=draw(TEXTS),
        narrative=draw(TEXTS),
        candidates_max=draw(st.integers(0, 2**31 - 1)),
        emergency_basis=draw(st.sampled_from(["", " ", "a child is missing"])),
        circumstances=draw(st.one_of(st.none(), CIRCUMSTANCES)),
    )


def officer_for(facts: SearchFacts, drawn: str, *, own: bool) -> str:
    return f"of-{facts.origin_agency.lower()}" if own else drawn


def _member(enum: str, name: str) -> st.SearchStrategy[str]:
    words = vocabulary().closed_lists[enum]
    return st.sampled_from(words).map(lambda w: f'context.{name} == Countersign::{enum}::"{w}"')


_SEAT = st.sampled_from(vocabulary().closed_lists["Seat"]).map(
    lambda word: f'Countersign::Seat::"{word}"'
)
CONDITIONS = st.one_of(
    _member("Purpose", "purpose"),
    _member("SuspicionLevel", "suspicion"),
    _member("OffenceSeverity", "severity"),
    _member("ProbeProvenance", "provenance"),
    _member("CaptureMode", "captureMode"),
    st.just("context has beneficiary"),
    _SEAT.map(lambda seat: f"context.seat == {seat}"),
    _SEAT.map(lambda seat: f"{seat} != context.seat"),
    _SEAT.map(lambda seat: f"context.seat in {seat}"),
    st.tuples(_SEAT, _SEAT).map(lambda s: f"[{s[0]}, {s[1]}].contains(context.seat)"),
    st.tuples(_SEAT, _SEAT).map(lambda s: f'context["seat"] in [{s[0]}, {s[1]}]'),
    st.sampled_from(
        [
            'context.caseNumber != ""',
            'context.statute like "1*"',
            'context.nibrsCode == "120"',
            "context.attempt",
            "context.narrativeGiven",
            "context.candidatesMax < 20",
            'context.now < datetime("2026-01-01")',
            'datetime("2026-06-01T12:00:00.500Z") >= context.now',
            'principal.hasTag("LACRIS-FR") && principal.getTag("LACRIS-FR") > context.now',
            'principal.hasTag("LACRIS-FR") && context.now == principal.getTag("LACRIS-FR")',
            'context.now.toDate() == datetime("2026-06-01")',
            'context.now < context.now.offset(duration("1s"))',
            '"26-0001" == context.caseNumber',
            '["", "120", "11A"].contains(context.nibrsCode)',
            "context.statute == context.caseNumber",
            "context.statute == context.statute",
            "[context.statute].contains(context.caseNumber)",
            "principal.hasTag(context.caseNumber)",
            f'context has beneficiary && context.beneficiary == Countersign::Agency::"{LAPD}"',
            'context.route == Countersign::RequestRoute::"informal"',
            "context.consentGiven",
            'context.instrument == Countersign::InstrumentKind::"none"',
            "context has instrumentInForce && context.instrumentInForce",
            "context has emergencyHours && context.emergencyHours > 0",
            "context.emergency",
            "context has emergencyBasisGiven && context.emergencyBasisGiven",
            "context has ratificationOverdue && context.ratificationOverdue",
            "context.askedForIdentity || context.unsolicited || context.requestFormAttested",
            'context.probeEdit == Countersign::ProbeEdit::"none"',
            'context.protectedBasis == Countersign::ProtectedBasis::"none"',
            'context.investigation == Countersign::InvestigationStage::"open"',
            'context.chargeStatus == Countersign::ChargeStatus::"suspected"',
            (
                "context has instrumentStatus && context.instrumentStatus == "
                'Countersign::InstrumentStatus::"granted"'
            ),
            (
                "context has instrumentIssuer && context.instrumentIssuer == "
                'Countersign::InstrumentIssuer::"court"'
            ),
            (
                "context has instrumentScope && context.instrumentScope == "
                'Countersign::InstrumentScope::"faceSearch"'
            ),
            (
                "context has instrumentJurisdiction && context.instrumentJurisdiction == "
                'Countersign::Jurisdiction::"US-CA"'
            ),
            'context.equivalentSets.containsAny([Countersign::OffenceSet::"robberies"])',
            'context.offenceSets.containsAll([Countersign::OffenceSet::"robberies"])',
            "context.equivalentSets.isEmpty()",
            'context.galleryOrigin == Countersign::GalleryOrigin::"criminalProceedings"',
            'context.offenceSets.contains(Countersign::OffenceSet::"robberies")',
            'context.requesterClass == Countersign::AgencyClass::"lawEnforcement"',
            "context.lowestGroupAccuracy < 980",
            'context.yearAgo < datetime("2025-06-01T12:00:00.500Z")',
            "principal.active",
            "resource.system.commercial",
            # What the guards would refuse: it errs, is never there, or takes the facts as a whole.
            f'context.beneficiary == Countersign::Agency::"{LAPD}"',
            "context has seat",
            "context.warrant",
            "context has warrant",
            "context.candidatesMax * 9223372036854775807 > 1",
            "{facts: context}.facts.attempt",
            "[context].contains(context)",
            '{facts: context}.facts.seat == Countersign::Seat::"origin"',
            '(if context.attempt then context else context).caseNumber == ""',
        ]
    ),
)
_JOINED = st.recursive(
    CONDITIONS,
    lambda parts: st.one_of(
        st.tuples(parts, st.sampled_from(["&&", "||", "=="]), parts).map(
            lambda p: f"({p[0]}) {p[1]} ({p[2]})"
        ),
        parts.map(lambda part: f"!({part})"),
    ),
    max_leaves=4,
)


@st.composite
def rules(draw: st.DrawFn, prefix: str) -> str:
    """One to four rules of up to three conditions each."""
    written = []
    for number in range(draw(st.integers(1, 4))):
        words = draw(st.lists(st.sampled_from(["when", "unless"]), max_size=3))
        head = draw(st.sampled_from([PERMIT, FORBID]))
        requirements = "".join(f'@requirement_{n + 1}("part {n}") ' for n in range(len(words)))
        clauses = "".join(f" {word} {{ {draw(_JOINED)} }}" for word in words)
        duty = '@obligation_log("officer") '
        written.append(
            requirements + duty + head.replace("LAPD-9", f"{prefix}{number}") + clauses + ";"
        )
    return "\n".join(written)
