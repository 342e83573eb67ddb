"""Face searches as AuthZEN asks of them, over the demonstration's directives."""

from typing import Any

from policy.authzen.searches import SearchDomain
from policy.deciding import Deciding
from shared.registry import Registry
from support.clocks import ClockThatStandsStill
from support.directives import LAPD, NOON, TRAINED, registry, shipped_book, vocabulary
from support.policies import current


def search_domain(known: Registry | None = None, deciding: Deciding | None = None) -> SearchDomain:
    """The demonstration's directives, at noon."""
    known = known or registry()
    deciding = deciding or Deciding(current(shipped_book(), known))
    return SearchDomain(deciding, lambda: known, vocabulary, ClockThatStandsStill(NOON))


def asks(**changes: Any) -> dict[str, Any]:
    """What `support.directives.ordinary` is about. A change to None leaves the member out."""
    question = {
        "subject": {"type": "officer", "id": TRAINED, "properties": {"agency": LAPD}},
        "action": {"name": "submitSearch"},
        "resource": {
            "type": "gallery",
            "id": "lacris-booking",
            "properties": {"system": "lacris"},
        },
        "context": context(),
    }
    question.update(changes)
    return {name: value for name, value in question.items() if value is not None}


def context(**changes: Any) -> dict[str, Any]:
    """The facts of it."""
    facts = {
        "beneficiary": LAPD,
        "purpose": "criminalInvestigation",
        "suspicion": "reasonableSuspicion",
        "offence": {"nibrs": "120", "severity": "violentFelony"},
        "provenance": "crimeSceneRecording",
        "captureMode": "storedVideoFrame",
        "caseNumber": "26-0001",
    }
    return {**facts, **changes}
