"""Face searches over AuthZEN: the same decisions as elsewhere, strictly asked, by those who may."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from countersign.policy.v1.policy_pb2 import EvaluateRequest
from countersign.type.v1.decision_pb2 import Decision
from countersign.type.v1.search_pb2 import CaptureMode, ProbeProvenance, Purpose
from directive.evaluate import Evaluator
from policy.authzen.front import DECISIONS_MAX
from policy.authzen.searches import SearchDomain
from policy.deciding import Deciding
from shared.registry import Registry
from support.authzen import Enforcement, asked
from support.authzen_searches import asks, context, search_domain
from support.clocks import ClockThatStandsStill
from support.directives import (
    BURBANK,
    LAPD,
    LASD,
    NOON,
    TRAINED,
    changed_registry,
    ordinary,
    registry,
    shipped_book,
    vocabulary,
)
from support.doors import Pki
from support.policies import current
from support.signals import Signals

EVALUATION = "/access/v1/evaluation"
LAPSED = "lapd-40777"
OFFENCE = {"nibrs": "120", "severity": "violentFelony"}


def elsewhere(at: datetime = NOON, officer: str = TRAINED, **facts: Any) -> Decision:
    """What the evaluator says of a search by itself."""
    return Evaluator(shipped_book(), registry()).evaluate(ordinary(**facts), officer, at)


def officer(name: str = TRAINED, agency: str = LAPD) -> dict[str, Any]:
    return {"type": "officer", "id": name, "properties": {"agency": agency}}


def gallery(name: str, **properties: str) -> dict[str, Any]:
    return {"type": "gallery", "id": name, "properties": properties}


ASKED_ALIKE = {
    "an own case": (asks(), {}),
    "a lapsed certificate": (asks(subject=officer(LAPSED)), {"officer": LAPSED}),
    "for another agency": (
        asks(context=context(beneficiary=BURBANK)),
        {"beneficiary_agency": BURBANK},
    ),
    "for nobody known": (asks(context=context(beneficiary=None)), {"beneficiary_agency": None}),
    "a commercial service": (
        asks(resource=gallery("facefind-web")),
        {"system": "facefind", "gallery": "facefind-web"},
    ),
    "a picture of a protest": (
        asks(context=context(provenance="protestRecording", captureMode="drone")),
        {
            "provenance": ProbeProvenance.PROBE_PROVENANCE_PROTEST_RECORDING,
            "capture_mode": CaptureMode.CAPTURE_MODE_DRONE,
        },
    ),
    "another purpose, and no case": (
        asks(context=context(purpose="crowdAnalysis", caseNumber="")),
        {"purpose": Purpose.PURPOSE_CROWD_ANALYSIS, "case_number": ""},
    ),
    "years ago": (
        asks(context=context(time="2019-12-31T16:00:00-08:00")),
        {"at": datetime.fromisoformat("2020-01-01T00:00:00Z")},
    ),
    "an officer of another agency": (
        asks(subject=officer(TRAINED, BURBANK)),
        {"origin_agency": BURBANK},
    ),
    "an unknown officer": (asks(subject=officer("nobody")), {"officer": "nobody"}),
    "a gallery of another system": (
        asks(resource=gallery("facefind-web", system="lacris")),
        {"gallery": "facefind-web"},
    ),
    "an unknown gallery": (
        asks(resource=gallery("nothing")),
        {"gallery": "nothing", "system": "nothing"},
    ),
}


@pytest.mark.parametrize(("question", "search"), ASKED_ALIKE.values(), ids=ASKED_ALIKE)
async def test_the_decision_is_the_one_that_the_evaluator_gives(
    pki: Pki, question: dict[str, Any], search: dict[str, Any]
) -> None:
    expected = elsewhere(**search)
    async with asked(search_domain(), pki) as pep:
        answer = await pep.evaluation(question)
    assert answer["decision"] == (expected.outcome == 1)
    duties = answer["context"].pop("obligations", [])
    said = ParseDict(answer["context"], Decision())
    for duty in duties:
        properties = dict(duty["properties"])
        assert properties.pop("vendor") == "countersign"
        said.obligations.add(**properties)
    assert said == expected


async def test_a_refusal_says_who_by_which_rule_and_what_was_missing(pki: Pki) -> None:
    async with asked(search_domain(), pki) as pep:
        missing = await pep.evaluation(asks(subject=officer(LAPSED)))
        forbidden = await pep.evaluation(asks(context=context(beneficiary=BURBANK)))
    origin = missing["context"]["verdicts"][0]
    assert (missing["decision"], origin["party"]) == (False, LAPD)
    assert [(u["rule_id"], u["clause"]) for u in origin["unmet"]] == [("LAPD-1", 3)]
    assert "certificate" in origin["unmet"][0]["requirement"]
    rules = forbidden["context"]["verdicts"][0]["rules"]
    assert [rule["id"] for rule in rules] == ["LAPD-3"]
    assert rules[0]["citation"].startswith("LAPD directive of 13 Nov 2020")


async def test_duties_come_in_the_shape_of_the_obligations_profile(pki: Pki) -> None:
    async with asked(search_domain(), pki) as pep:
        metadata = (await pep.send("GET", "/.well-known/authzen-configuration")).json
        permitted = await pep.evaluation(asks())
        attempted = await pep.evaluation(asks(resource=gallery("facefind-web")))
    assert metadata["supported_obligations"] == ["custom"]
    for answer, kinds in ((permitted, {"log", "notice"}), (attempted, {"notify"})):
        duties = answer["context"]["obligations"]
        assert {duty["type"] for duty in duties} == {"custom"}
        assert len({duty["id"] for duty in duties}) == len(duties)
        assert {duty["properties"]["kind"] for duty in duties} == kinds
    assert (permitted["decision"], attempted["decision"]) == (True, False)


async def test_an_agency_system_asks_as_the_origin_only_and_about_now(pki: Pki) -> None:
    as_burbank = asks(subject=officer("burbank-117", BURBANK))
    async with asked(search_domain(), pki, "agency", LAPD) as pep:
        assert (await pep.evaluation(asks()))["decision"] is True
        for question, reason in (
            (as_burbank, "ORIGIN_NOT_CALLER"),
            (asks(context=context(time="2026-06-01T12:00:00Z")), "TIME_NOT_CALLERS"),
        ):
            answer = await pep.post(EVALUATION, question)
            assert (answer.status, answer.reason) == (403, reason)
        for sought in ("subject", "resource", "action"):
            answer = await pep.post(f"/access/v1/search/{sought}", as_burbank)
            assert (answer.status, answer.reason) == (403, "ORIGIN_NOT_CALLER")
        several = await pep.post("/access/v1/evaluations", {"evaluations": [asks(), as_burbank]})
        one, other = several.json["evaluations"]
        assert (one["decision"], other["decision"]) == (True, False)
        assert other["context"] == {
            "error": {
                "status": 403,
                "reason": "ORIGIN_NOT_CALLER",
                "message": f"spiffe://countersign.test/agency/{LAPD} may not ask in the name of "
                "another agency",
                "violations": [],
            }
        }


STRICT: dict[str, dict[str, Any]] = {
    "a property of the subject": asks(
        subject={**officer(), "properties": {"agency": LAPD, "x": 1}}
    ),
    "no agency": asks(subject={"type": "officer", "id": TRAINED}),
    "an agency that is no text": asks(subject={**officer(), "properties": {"agency": 7}}),
    "an agency that is no ORI": asks(subject=officer(agency="lapd")),
    "a property of the action": asks(action={"name": "submitSearch", "properties": {"x": 1}}),
    "another action": asks(action={"name": "search"}),
    "another subject": asks(subject={**officer(), "type": "user"}),
    "another resource": asks(resource={"type": "system", "id": "lacris"}),
    "a property of the resource": asks(resource=gallery("lacris-booking", owner=LASD)),
    "a system that is no text": asks(
        resource={"type": "gallery", "id": "lacris-booking", "properties": {"system": None, "x": 1}}
    ),
    "no context": asks(context=None),
    "a fact that nobody knows": asks(context=context(weather="rain")),
    "a fact within a fact": asks(context=context(offence={**OFFENCE, "weather": "rain"})),
    "no purpose": asks(context={k: v for k, v in context().items() if k != "purpose"}),
    "a purpose that is not given": asks(context=context(purpose=None)),
    "a purpose that is no word": asks(context=context(purpose="fishing")),
    "nobody says for whom": asks(
        context={k: v for k, v in context().items() if k != "beneficiary"}
    ),
    "a flag in words": asks(context=context(offence={**OFFENCE, "attempt": "no"})),
    "a number in words": asks(context=context(candidatesMax="20")),
    "too many candidates": asks(context=context(candidatesMax=51)),
    "a number without end": asks(context=context(candidatesMax=10**400)),
    "an officer as a fact": asks(context=context(officer=TRAINED)),
    "an origin as a fact": asks(context=context(origin=LAPD)),
    "a system as a fact": asks(context=context(system="lacris")),
    "a time that is none": asks(context=context(time="noon")),
    "a time without a zone": asks(context=context(time="2026-06-01T12:00:00")),
    "a time that is a number": asks(context=context(time=0)),
    "a time before all others": asks(context=context(time="0001-01-01T00:00:00+14:00")),
    "a case number past the bound": asks(context=context(caseNumber="2" * 65)),
    "an instrument without a zone": asks(
        context=context(instrument={"kind": "searchWarrant", "issued": "2026-06-01T12:00:00"})
    ),
    "an instrument with uses past counting": asks(
        context=context(instrument={"kind": "searchWarrant", "usesLeft": 10**30})
    ),
    "an officer with too long a name": asks(subject=officer("x" * 129)),
    "a gallery with another spelling": asks(resource=gallery("LACRIS booking")),
}


@pytest.mark.parametrize("question", STRICT.values(), ids=STRICT)
async def test_what_is_not_known_is_refused_and_no_decision(
    pki: Pki, question: dict[str, Any]
) -> None:
    async with asked(search_domain(), pki) as pep:
        answer = await pep.post(EVALUATION, question)
    assert (answer.status, answer.reason) == (400, "INVALID_REQUEST")
    assert b"26-0001" not in answer.body


async def test_circumstances_are_facts_too(pki: Pki) -> None:
    stated = context(
        route="direct",
        protectedBasis="none",
        consentGiven=False,
        instrument={
            "kind": "searchWarrant",
            "status": "granted",
            "issuer": "court",
            "jurisdiction": "US-CA",
            "scope": "faceSearch",
            "issued": "2026-05-01T00:00:00Z",
            "expires": "never",
            "usesLeft": "unlimited",
        },
        emergency={"claimed": False},
        supported_obligations=["notification"],
    )
    async with asked(search_domain(), pki) as pep:
        assert (await pep.evaluation(asks(context=stated)))["decision"] is True


async def test_galleries_that_an_officer_may_search_are_found(pki: Pki) -> None:
    async with asked(search_domain(), pki, "agency", LAPD) as pep:
        found = await pep.search("resource", asks(resource={"type": "gallery"}))
        (one,) = found["results"]
        assert (one["type"], one["id"]) == ("gallery", "lacris-booking")
        assert {duty["properties"]["kind"] for duty in one["obligations"]} == {"log", "notice"}
        again = asks(resource={"type": one["type"], "id": one["id"]})
        assert (await pep.evaluation(again))["decision"] is True
        for nothing in (
            asks(resource={"type": "gallery", "properties": {"system": "facefind"}}),
            asks(resource={"type": "gallery"}, subject=officer(LAPSED)),
            asks(resource={"type": "gallery"}, action={"name": "delete"}),
            asks(resource={"type": "system"}),
        ):
            found = await pep.search("resource", nothing)
            assert found == {"page": {"next_token": "", "count": 0}, "results": []}


async def test_officers_of_the_agency_who_may_search_are_found(pki: Pki) -> None:
    async with asked(search_domain(), pki, "agency", LAPD) as pep:
        question = asks(subject={"type": "officer", "properties": {"agency": LAPD}})
        found = await pep.search("subject", question)
        assert [one["id"] for one in found["results"]] == [TRAINED]
        nobody = await pep.search("subject", {**question, "subject": {"type": "user"}})
        assert nobody["results"] == []
        wrong = await pep.post(
            "/access/v1/search/subject", {**question, "context": context(weather="rain")}
        )
        assert wrong.status == 400


async def test_the_action_is_found_where_it_is_permitted(pki: Pki) -> None:
    async with asked(search_domain(), pki) as pep:
        found = await pep.search("action", asks(action=None))
        assert [one["name"] for one in found["results"]] == ["submitSearch"]
        refused = await pep.search("action", asks(action=None, subject=officer(LAPSED)))
        assert refused["results"] == []


async def test_nothing_of_what_is_asked_is_in_logs_traces_or_metrics(
    pki: Pki, signals: Signals
) -> None:
    secret = "Jane-Doe-26-0001"
    unreadable = [
        asks(context=context(purpose=secret)),
        asks(context=context(**{secret: secret})),
        asks(subject=officer(secret, secret)),
        asks(context=context(narrative=[secret])),
    ]
    async with asked(search_domain(), pki) as pep:
        told = asks(
            subject=officer(secret.lower()), context=context(caseNumber=secret, narrative=secret)
        )
        answer = await pep.post(EVALUATION, told, X_Request_ID=secret)
        assert answer.json["decision"] is False
        for question in unreadable:
            assert (await pep.post(EVALUATION, question, X_Request_ID=secret)).status == 400
        assert (await pep.post(f"/{secret}?{secret}", told)).status == 404
    assert len([one for one in signals.spans if one.name == "POST /access/v1/evaluation"]) == 5
    assert secret.lower() not in signals.everything().lower()


def crowded(officers: int) -> Registry:
    """Every seventh of the officers is trained and listed."""
    until = (NOON + timedelta(days=1)).date()
    return changed_registry(
        officers={
            f"lapd-{90_000 + number}": {
                "agency": LAPD,
                "active": True,
                "lists": ["lapd-fr-users"] if number % 7 == 0 else [],
                "certificates": {"LACRIS-FR": until},
            }
            for number in range(officers)
        }
    )


async def everyone(pep: Enforcement, limit: int) -> tuple[list[str], int]:
    """All results, and in how many pages."""
    found: list[str] = []
    page: dict[str, Any] = {"limit": limit}
    for pages in range(1, 1000):
        question = asks(subject={"type": "officer", "properties": {"agency": LAPD}}, page=page)
        answer = await pep.search("subject", question)
        found += [one["id"] for one in answer["results"]]
        token = answer["page"]["next_token"]
        if not token:
            return found, pages
        page = {"limit": limit, "token": token}
    raise AssertionError("there is no end")


class CountingDeciding(Deciding):
    """Counts the decisions."""

    made = 0

    async def evaluate(self, request: EvaluateRequest) -> Any:
        """Decides."""
        self.made += 1
        return await super().evaluate(request)


async def test_a_page_is_bounded_in_decisions_and_pages_lose_nobody(pki: Pki) -> None:
    officers = 3 * DECISIONS_MAX
    known = crowded(officers)
    deciding = CountingDeciding(current(shipped_book(), known))
    listed = [f"lapd-{90_000 + number}" for number in range(0, officers, 7)]
    async with asked(search_domain(known, deciding), pki, "agency", LAPD) as pep:
        question = asks(subject={"type": "officer", "properties": {"agency": LAPD}})
        first = await pep.search("subject", question)
        assert deciding.made == DECISIONS_MAX
        assert 0 < first["page"]["count"] < DECISIONS_MAX
        found, pages = await everyone(pep, 1000)
        assert (found, pages) == ([TRAINED, *listed], 4)
        found, _ = await everyone(pep, 5)
        assert found == [TRAINED, *listed]


async def test_who_is_registered_meanwhile_is_found(pki: Pki) -> None:
    """Also from none on: a policy service starts before it has heard from the ledger."""
    registries: list[Registry] = []
    deciding = Deciding(current(shipped_book(), crowded(1)))
    domain = SearchDomain(deciding, lambda: registries[-1], vocabulary, ClockThatStandsStill(NOON))
    question = asks(subject={"type": "officer", "properties": {"agency": LAPD}})
    async with asked(domain, pki) as pep:
        for newest, officers in ((registry(), [TRAINED]), (crowded(1), [TRAINED, "lapd-90000"])):
            registries.append(newest)
            found = await pep.search("subject", question)
            assert [one["id"] for one in found["results"]] == officers
