"""Why a verdict could not be told, in words, with what can be done about it."""

from collections.abc import Iterator, Mapping
from typing import Final

from countersign.type.v1.decision_pb2 import Decision

_TEXTS: Final[Mapping[str, str]] = {
    "NO_DIRECTIVE": "The party has no directive in force. It permits nothing until it has one.",
    "EVALUATION_ERROR": "A directive failed when it was applied. Tell whoever runs the policy service.",
    "NO_DECISION": "The directives gave no decision. Tell whoever runs the policy service.",
    "BENEFICIARY_UNKNOWN": "Nobody said on whose behalf the search is made. "
    "Give --own-case or --beneficiary ORI.",
    "JURISDICTION_UNKNOWN": "It is not known whose law applies. "
    "Have the agencies' jurisdictions put in the registry.",
    "UNKNOWN_AGENCY": "The agency is not in the registry. Check the ORI (--beneficiary; agency in the "
    "configuration file).",
    "UNKNOWN_SYSTEM": "There is no such system. Choose one from: countersign system list",
    "UNKNOWN_GALLERY": "The system has no such gallery. Choose one from: countersign system list",
    "UNKNOWN_OFFICER": "The officer is not in the registry. Check the identifier, or have the agency "
    "register the officer.",
    "OFFICER_OF_ANOTHER_AGENCY": "The officer is another agency's. An officer of the agency that "
    "submits the search must ask.",
    "FACT_UNKNOWN": "A fact that the directives ask for was not stated, or has a value that they do not "
    "know. State it (see: countersign search submit --help).",
    "PARTY_EXPELLED": "The registrars have expelled the party, or who registered what its rules ask "
    "for. See: countersign registry list",
    "ASKED_AT_PEER": "The party belongs to the installation that has the system, and is asked there.",
}


def fault_text(fault: str) -> str:
    """One fault in a sentence; one that a newer server names is left to its name."""
    return _TEXTS.get(fault, "The directives could not be applied.")


def faults_of_all(decision: Decision) -> list[str]:
    """What keeps every party from telling: it lies in the request, not with a party."""
    if not decision.verdicts:
        return []
    first, *others = (verdict.faults for verdict in decision.verdicts)
    return [fault for fault in first if all(fault in faults for faults in others)]


def every_fault(decision: Decision) -> Iterator[str]:
    """Each fault once, those that keep every party from telling first."""
    each = (fault for verdict in decision.verdicts for fault in verdict.faults)
    yield from dict.fromkeys([*faults_of_all(decision), *each])
