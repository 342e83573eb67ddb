"""Asks the engine questions with known answers before the first search is decided.

Each stands for a way in which Cedar, wrongly wired, permits without reporting anything. They run on
the very handles that decide searches.
"""

import json
from typing import Final

import cedarpy

from directive.entities import ref
from directive.vocabulary import Vocabulary
from shared.registry import Registry

_ABSENT: Final = "self-test"
"""Stands in for an officer or a gallery where the registry has none."""

_PERMIT_ALL: Final = "permit (principal, action, resource);"
_FORBID_SEARCHES: Final = 'forbid (principal, action in Countersign::Action::"search", resource);'
_FORBID_BY_ERROR: Final = (
    'forbid (principal, action, resource) when { context.beneficiary == Countersign::Agency::"" };'
)


class EngineUntrustworthy(Exception):
    """The engine answered a question with a known answer wrongly. Nothing may be decided with it."""


def run(entities: cedarpy.Entities, registry: Registry, vocabulary: Vocabulary) -> None:
    """Raises EngineUntrustworthy."""
    context = {
        "now": "2020-01-01T00:00:00.000Z",
        "seat": ref("Seat", "origin"),
        "purpose": ref("Purpose", "criminalInvestigation"),
        "suspicion": ref("SuspicionLevel", "none"),
        "severity": ref("OffenceSeverity", "notCriminal"),
        "provenance": ref("ProbeProvenance", "unknown"),
        "captureMode": ref("CaptureMode", "storedStill"),
        "nibrsCode": "",
        "statute": "",
        "attempt": False,
        "caseNumber": "",
        "narrativeGiven": False,
        "candidatesMax": 1,
    }
    gallery = next(iter(registry.galleries), _ABSENT)
    request = {
        "principal": ref("Officer", next(iter(registry.officers), _ABSENT)),
        "action": ref("Action", "submitSearch"),
        "resource": ref("Gallery", gallery),
    }

    def asked(rules: str, facts: dict[str, object]) -> cedarpy.AuthzResult:
        return cedarpy.is_authorized(
            {**request, "context": json.dumps(facts)},
            cedarpy.PolicySet.from_str(_PERMIT_ALL + rules),
            entities,
            vocabulary.schema,
        )

    if asked("", context).decision is not cedarpy.Decision.Allow:
        raise EngineUntrustworthy("a permit without conditions did not permit")
    if asked(_FORBID_SEARCHES, context).decision is not cedarpy.Decision.Deny:
        raise EngineUntrustworthy(
            "a prohibition of all searches did not forbid one: entities built without the schema?"
        )
    if not asked(_FORBID_BY_ERROR, context).diagnostics.errors:
        raise EngineUntrustworthy("a rule that errs was not reported")
    del context["purpose"]
    if asked("", context).decision is not cedarpy.Decision.NoDecision:
        raise EngineUntrustworthy("a search without a purpose was decided: schema not applied?")
    if gallery != _ABSENT:
        context["purpose"] = ref("Purpose", "criminalInvestigation")
        operator = registry.systems[registry.galleries[gallery].system].operator
        through = (
            "forbid (principal, action, resource) when "
            f'{{ resource.system.operator == Countersign::Agency::"{operator}" }};'
        )
        if asked(through, context).decision is not cedarpy.Decision.Deny:
            raise EngineUntrustworthy("a rule could not read who operates a gallery's system")
