"""Asks the engine questions with known answers before the first search is decided.

Each stands for a way in which Cedar, wrongly wired, permits without reporting anything. They run on
the very handles that decide searches.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Final

import cedarpy

from directive.entities import ref
from directive.projection import Projection
from directive.vocabulary import Vocabulary
from shared.registry import Registry

_ABSENT: Final = "self-test"
"""Stands in for an officer or a gallery where the registry has none."""
_TRIED_MAX: Final = 512
"""As many projections as the books of one process have, several times over."""

_PERMIT_ALL: Final = "permit (principal, action, resource);"
_FORBID_SEARCHES: Final = 'forbid (principal, action in Countersign::Action::"search", resource);'
_FORBID_BY_ERROR: Final = (
    'forbid (principal, action, resource) when { context.beneficiary == Countersign::Agency::"" };'
)
_FACTS: Final[Mapping[str, object]] = {
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
    "yearAgo": "2019-01-01T00:00:00.000Z",
    "probeEdit": ref("ProbeEdit", "none"),
    "route": ref("RequestRoute", "direct"),
    "protectedBasis": ref("ProtectedBasis", "none"),
    "investigation": ref("InvestigationStage", "none"),
    "chargeStatus": ref("ChargeStatus", "notSuspected"),
    "offenceSets": [],
    "equivalentSets": [],
    "consentGiven": False,
    "askedForIdentity": False,
    "requestFormAttested": False,
    "unsolicited": False,
    "instrument": ref("InstrumentKind", "none"),
    "emergency": False,
    "requesterClass": ref("AgencyClass", "other"),
    "galleryOrigin": ref("GalleryOrigin", "given"),
    "lowestGroupAccuracy": 0,
}
"""What is told of every search, to rules that read it."""
_MAY_BE_ABSENT: Final[Mapping[str, object]] = {
    "beneficiary": ref("Agency", _ABSENT),
    "instrumentStatus": ref("InstrumentStatus", "granted"),
    "instrumentIssuer": ref("InstrumentIssuer", "court"),
    "instrumentJurisdiction": ref("Jurisdiction", _ABSENT),
    "instrumentScope": ref("InstrumentScope", "other"),
    "instrumentInForce": False,
    "emergencyHours": 0,
    "emergencyBasisGiven": False,
    "ratificationOverdue": False,
}


@cache
def _policies(rules: str) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str(_PERMIT_ALL + rules)


class EngineUntrustworthy(Exception):
    """The engine answered a question with a known answer wrongly. Nothing may be decided with it."""


def asked_about(registry: Registry) -> tuple[str, str]:
    """The officer and the gallery that are asked about."""
    return next(iter(registry.officers), _ABSENT), next(iter(registry.galleries), _ABSENT)


def run(
    entities: cedarpy.Entities,
    registry: Registry,
    vocabulary: Vocabulary,
    projections: Iterable[Projection] = (),
) -> None:
    """Tries the engine with all facts and with those of each projection; raises EngineUntrustworthy."""
    everything = Projection(tuple(vocabulary.facts), vocabulary.schema)
    for projection in (everything, *projections):
        _Trial(entities, registry, projection).run()


class _Trial:
    """The engine with one projection."""

    def __init__(
        self, entities: cedarpy.Entities, registry: Registry, projection: Projection
    ) -> None:
        self._entities = entities
        self._registry = registry
        self._projection = projection
        self._told = _told(projection)
        self._names = asked_about(registry)

    def _asked(self, rules: str, facts: Mapping[str, object]) -> cedarpy.AuthzResult:
        return _asked(rules, facts, self._names, self._entities, self._projection)

    def run(self) -> None:
        """Raises EngineUntrustworthy."""
        told = self._told
        if self._asked("", told).decision is not cedarpy.Decision.Allow:
            raise EngineUntrustworthy("a permit without conditions did not permit")
        if self._asked(_FORBID_SEARCHES, told).decision is not cedarpy.Decision.Deny:
            raise EngineUntrustworthy(
                "a prohibition of all searches did not forbid one: "
                "entities built without the schema?"
            )
        if not self._asked(_FORBID_BY_ERROR, told).diagnostics.errors:
            raise EngineUntrustworthy("a rule that errs was not reported")
        _tell_one_fact_more_or_less(self._projection, self._names)
        self._reads_through_entities()

    def _reads_through_entities(self) -> None:
        _, gallery = self._names
        if gallery == _ABSENT:
            return
        system = self._registry.galleries[gallery].system
        operator = self._registry.systems[system].operator
        through = (
            "forbid (principal, action, resource) when "
            f'{{ resource.system.operator == Countersign::Agency::"{operator}" }};'
        )
        if self._asked(through, self._told).decision is not cedarpy.Decision.Deny:
            raise EngineUntrustworthy("a rule could not read who operates a gallery's system")


def _told(projection: Projection) -> dict[str, object]:
    return {fact: _FACTS[fact] for fact in projection.facts if fact in _FACTS}


def _asked(
    rules: str,
    facts: Mapping[str, object],
    names: tuple[str, str],
    entities: cedarpy.Entities,
    projection: Projection,
) -> cedarpy.AuthzResult:
    officer, gallery = names
    request = {
        "principal": ref("Officer", officer),
        "action": ref("Action", "submitSearch"),
        "resource": ref("Gallery", gallery),
        "context": json.dumps(facts),
    }
    return cedarpy.is_authorized(request, _policies(rules), entities, projection.schema)


@lru_cache(_TRIED_MAX)
def _tell_one_fact_more_or_less(projection: Projection, names: tuple[str, str]) -> None:
    """Raises EngineUntrustworthy.

    This is about the schema's handle alone, and most of what the self-test costs. So a handle that was
    found right, which nothing can change, is not tried again for other registries; one that was not, is.
    """
    nobody = cedarpy.Entities.from_json_str("[]")
    told = _told(projection)
    for missing in told:
        rest = {fact: value for fact, value in told.items() if fact != missing}
        asked = _asked("", rest, names, nobody, projection)
        if asked.decision is not cedarpy.Decision.NoDecision:
            raise EngineUntrustworthy(
                f"a search without {missing} was decided: schema not applied?"
            )
    others = {**_FACTS, **_MAY_BE_ABSENT}
    for fact in others.keys() - set(projection.facts):
        more = {**told, fact: others[fact]}
        asked = _asked("", more, names, nobody, projection)
        if asked.decision is not cedarpy.Decision.NoDecision:
            raise EngineUntrustworthy(
                f"a search was decided with {fact}, which no rule was to be told"
            )
