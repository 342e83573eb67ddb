"""Searches of which everything is known, and a registry that knows everything of who takes part."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from countersign.type.v1 import circumstances_pb2 as pb
from countersign.type.v1.search_pb2 import SearchFacts
from shared.clock import stamp
from shared.registry import Registry
from support.directives import NOON, changed_registry, ordinary

ISSUED = datetime(2026, 5, 1, tzinfo=UTC)
EXPIRES = datetime(2026, 7, 1, tzinfo=UTC)


@cache
def whole_registry() -> Registry:
    """The demonstration's, with what directives may ask of systems, galleries and offences."""
    return changed_registry(
        systems={"lacris": {"lowest_group_accuracy": 990}},
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


def instrument(**changes: Any) -> pb.Instrument:
    """A search warrant in force, with some fields changed."""
    whole: dict[str, Any] = {
        "kind": pb.INSTRUMENT_KIND_SEARCH_WARRANT,
        "status": pb.INSTRUMENT_STATUS_GRANTED,
        "issuer": pb.INSTRUMENT_ISSUER_COURT,
        "court": "Superior Court",
        "jurisdiction": "US-CA",
        "scope": pb.INSTRUMENT_SCOPE_FACE_SEARCH,
        "issued_at": stamp(ISSUED),
        "expires_at": stamp(EXPIRES),
        "uses_left": 1,
        **changes,
    }
    return pb.Instrument(**{name: value for name, value in whole.items() if value is not None})


def emergency(**changes: Any) -> pb.Emergency:
    """One that began an hour ago, with some fields changed."""
    whole: dict[str, Any] = {
        "claimed": True,
        "began_at": stamp(NOON - timedelta(hours=1)),
        "ratify_by": stamp(NOON + timedelta(hours=47)),
        **changes,
    }
    return pb.Emergency(**{name: value for name, value in whole.items() if value is not None})


def circumstances(**changes: Any) -> pb.Circumstances:
    """All of them known, with some changed; None leaves one out."""
    whole: dict[str, Any] = {
        "probe_edit": pb.PROBE_EDIT_NONE,
        "route": pb.REQUEST_ROUTE_DIRECT,
        "protected_basis": pb.PROTECTED_BASIS_NONE,
        "investigation": pb.INVESTIGATION_STAGE_OPEN,
        "charge_status": pb.CHARGE_STATUS_SUSPECTED,
        "consent_given": False,
        "asked_for_identity": False,
        "request_form_attested": False,
        "unsolicited": False,
        "instrument": pb.Instrument(kind=pb.INSTRUMENT_KIND_NONE),
        "emergency": pb.Emergency(claimed=False),
        **changes,
    }
    return pb.Circumstances(**{name: value for name, value in whole.items() if value is not None})


def known(**changes: Any) -> SearchFacts:
    """A search that everybody permits, of which everything is known but for what is changed to None."""
    return ordinary(circumstances=circumstances(**changes))
