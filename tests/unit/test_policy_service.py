"""The policy service: decisions for the broker only, directives for all, pages that hold together."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import DecisionOutcome, Seat
from countersign.type.v1.search_pb2 import GalleryClass
from directive.book import Book
from policy.applied import Applied
from policy.config import PolicySettings
from policy.deciding import Deciding
from policy.service import ACCESS, SERVICE, PolicyServicer
from policy.sources import load
from shared.errors import InvalidRequest, NotFound, Unavailable
from shared.identity import SpiffeId
from shared.settings import SettingsError
from support.clocks import ClockThatStandsStill
from support.directives import (
    BURBANK,
    DIRECTIVES,
    FORBID,
    LAPD,
    NOON,
    PERMIT,
    TRAINED,
    book_where_others_permit,
    changed_registry,
    manifest,
    ordinary,
    shipped_book,
    unguarded,
)
from support.policies import current
from support.signals import Signals

CONTEXT: Any = None
"""No handler here looks at it."""


def deciding(book: Book) -> Deciding:
    return Deciding(current(book))


@pytest.fixture(name="servicer", scope="module")
def _servicer() -> PolicyServicer:
    return PolicyServicer(
        deciding(shipped_book()), current(shipped_book()), ClockThatStandsStill(NOON)
    )


def question(**changes: Any) -> pb.EvaluateRequest:
    request = pb.EvaluateRequest(facts=ordinary(**changes), officer=TRAINED)
    request.at.FromDatetime(NOON)
    return request


async def test_what_a_peer_says_is_no_label_of_our_metrics(
    servicer: PolicyServicer, signals: Signals
) -> None:
    request = question()
    request.peer.trust_domain = "west.test"
    request.peer.parties.append(LAPD)
    request.peer.vouched.add(seat=Seat.SEAT_ORIGIN, party=LAPD, faults=["free text"])
    signals.points()
    await servicer.Evaluate(request, CONTEXT)
    points = signals.points()["countersign.policy.verdicts"]
    assert "free text" not in {(point.attributes or {}).get("fault") for point in points}


async def test_a_decision_comes_with_the_parties(servicer: PolicyServicer) -> None:
    response = await servicer.Evaluate(question(beneficiary_agency=BURBANK), CONTEXT)
    assert response.decision.outcome == DecisionOutcome.DECISION_OUTCOME_REFUSED
    assert response.parties == pb.Parties(
        origin_agency=LAPD,
        beneficiary_agency=BURBANK,
        operator_agency="CA0190000",
        gallery_owner="CA0190000",
        jurisdictions=["US-CA"],
        gallery_class=GalleryClass.GALLERY_CLASS_BOOKING_PHOTOS,
    )


async def test_unknown_parties_are_empty(servicer: PolicyServicer) -> None:
    asked = question(beneficiary_agency=None, system="nowhere", gallery="nowhere")
    parties = (await servicer.Evaluate(asked, CONTEXT)).parties
    assert (parties.beneficiary_agency, parties.operator_agency, parties.gallery_owner) == (
        "", "", "",
    )  # fmt: skip


async def test_parties_are_those_of_the_registry_by_which_it_was_decided() -> None:
    moved = changed_registry(systems={"lacris": {"operator": BURBANK}})
    states = [current(shipped_book()), current(shipped_book(), moved)]
    servicer = Deciding(lambda: states[0]())
    for operator in ("CA0190000", BURBANK, "CA0190000"):
        for asked in (question(), question(beneficiary_agency=None)):
            batch = await servicer.evaluate_batch(pb.EvaluateBatchRequest(requests=[asked] * 2))
            for answer in batch.responses:
                assert answer.parties.operator_agency == operator
                assert answer.parties.beneficiary_agency == asked.facts.beneficiary_agency
        states.reverse()


@pytest.mark.parametrize(
    ("agency", "officer", "known"),
    [(LAPD, TRAINED, True), (BURBANK, TRAINED, False), (LAPD, "nobody", False), (LAPD, "", False)],
)
async def test_who_is_an_officer_of_an_agency_is_told(
    servicer: PolicyServicer, agency: str, officer: str, known: bool
) -> None:
    asked = pb.EvaluateBatchRequest(requests=[question()])
    asked.officers.add(agency=agency, officer=officer)
    told = await Deciding(current(shipped_book())).evaluate_batch(asked)
    assert len(told.responses) == 1
    assert [one.known for one in told.officers] == [known]


def with_documents(applied: Applied, newest: int) -> Applied:
    """The same, as it was made of the ledger's documents up to one."""
    return replace(applied, holdings=SimpleNamespace(head=newest))  # type: ignore[arg-type]  # no more is read


async def test_officers_are_told_by_the_document_that_is_named() -> None:
    """Whoever was let go by it is known no more, though the service had not heard of it yet."""
    gone = changed_registry(officers={TRAINED: {"agency": BURBANK}})
    states = [
        with_documents(current(shipped_book())(), 6),
        with_documents(current(shipped_book(), gone)(), 7),
    ]
    heard = []

    async def hear() -> None:
        heard.append(states.pop(0))

    servicer = Deciding(lambda: states[0], hear)
    asked = pb.EvaluateBatchRequest()
    asked.officers.add(agency=LAPD, officer=TRAINED, documents_index=7)
    told = await servicer.evaluate_batch(asked)
    assert [one.known for one in told.officers] == [False]
    assert len(heard) == 1
    states.append(states[0])
    asked.officers[0].documents_index = 8
    with pytest.raises(Unavailable):
        await servicer.evaluate_batch(asked)


@pytest.mark.parametrize("count", [0, 65])
async def test_a_batch_of_no_size_or_too_great_is_refused(count: int) -> None:
    asked = pb.EvaluateBatchRequest(officers=[pb.OfficerQuestion(agency=LAPD)] * count)
    with pytest.raises(InvalidRequest):
        await Deciding(current(shipped_book())).evaluate_batch(asked)


@pytest.mark.parametrize("missing", ["facts", "at", "officer"])
async def test_a_question_without_a_part_is_not_answered(
    servicer: PolicyServicer, missing: str
) -> None:
    request = question()
    request.ClearField(missing)  # type: ignore[arg-type]  # each of the three in turn
    with pytest.raises(InvalidRequest) as refused:
        await servicer.Evaluate(request, CONTEXT)
    assert [violation.field for violation in refused.value.violations] == [missing]


async def test_a_time_that_is_none_is_not_answered(servicer: PolicyServicer) -> None:
    request = question()
    request.at.seconds = 2**60
    with pytest.raises(InvalidRequest):
        await servicer.Evaluate(request, CONTEXT)


async def test_a_directive_that_errs_is_an_incident_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    erring = unguarded(PERMIT + ";" + FORBID.replace("-9", "-8") + "when { context.warrant };")
    with caplog.at_level(logging.ERROR):
        answer = await deciding(book_where_others_permit(erring)).evaluate(question())
    assert answer.decision.outcome == DecisionOutcome.DECISION_OUTCOME_REFUSED
    told = [vars(record)["fields"] for record in caplog.records]
    assert {(entry["party"], entry["faults"][0]) for entry in told} == {(LAPD, "EVALUATION_ERROR")}
    assert TRAINED not in str(told)


@pytest.mark.parametrize(
    ("caller", "may_evaluate"),
    [
        ("service/broker", True),
        ("service/ledger", False),
        ("agency/CA0194200", False),
        ("agency/broker", False),
        ("connector/lacris", False),
        ("operator/broker", False),
    ],
)
def test_only_the_broker_asks_for_decisions_and_everyone_reads(
    caller: str, may_evaluate: bool
) -> None:
    who = SpiffeId.parse(f"spiffe://countersign.test/{caller}")
    assert ACCESS[f"/{SERVICE}/Evaluate"](who) is may_evaluate
    assert ACCESS[f"/{SERVICE}/ListDirectives"](who)
    assert ACCESS[f"/{SERVICE}/GetDirective"](who)


async def listed(servicer: PolicyServicer, size: int, party: str = "") -> list[str]:
    names, token = [], ""
    for _ in range(100):
        page = await servicer.ListDirectives(
            pb.ListDirectivesRequest(page_size=size, page_token=token, party=party), CONTEXT
        )
        assert len(page.directives) <= (size or 50)
        names += [one.name for one in page.directives]
        token = page.next_page_token
        if not token:
            return names
    raise AssertionError("pages without end")


@pytest.mark.parametrize("size", [0, 1, 2, 6, 200])
async def test_pages_list_each_directive_once(servicer: PolicyServicer, size: int) -> None:
    assert await listed(servicer, size) == sorted(shipped_book().directives)


async def test_a_partys_directives_alone(servicer: PolicyServicer) -> None:
    mine = await listed(servicer, 1, LAPD)
    assert mine == ["lapd-2020-11-13", "lapd-commission-2021-01-12"]
    assert await listed(servicer, 1, "XX0000000") == []


@pytest.mark.parametrize("token", ["?", "////", "MQ==", "\u00e9", "MQBYAGE="])
async def test_a_token_of_another_list_is_not_understood(
    servicer: PolicyServicer, token: str
) -> None:
    with pytest.raises(InvalidRequest):
        await servicer.ListDirectives(pb.ListDirectivesRequest(page_token=token), CONTEXT)
    page = await servicer.ListDirectives(pb.ListDirectivesRequest(page_size=1), CONTEXT)
    with pytest.raises(InvalidRequest):
        await servicer.ListDirectives(
            pb.ListDirectivesRequest(page_token=page.next_page_token, party=LAPD), CONTEXT
        )


async def test_a_directive_is_shown_with_its_exact_text(servicer: PolicyServicer) -> None:
    shown = await servicer.GetDirective(pb.GetDirectiveRequest(name="lapd-2020-11-13"), CONTEXT)
    folder = DIRECTIVES / "lapd-2020-11-13"
    assert shown.manifest.encode() == (folder / "directive.toml").read_bytes()
    assert shown.rules.encode() == (folder / "rules.cedar").read_bytes()
    assert shown.directive.in_force
    assert [rule.id for rule in shown.directive.rules] == [f"LAPD-{n}" for n in range(1, 6)]
    assert len(shown.directive.sha256) == 32
    assert not shown.directive.HasField("effective_until")


async def test_a_directive_is_not_in_force_before_its_day() -> None:
    early = ClockThatStandsStill(NOON.replace(year=2020, month=11, day=12))
    servicer = PolicyServicer(deciding(shipped_book()), current(shipped_book()), early)
    shown = await servicer.GetDirective(pb.GetDirectiveRequest(name="lapd-2020-11-13"), CONTEXT)
    assert not shown.directive.in_force


async def test_an_unknown_directive_is_not_found(servicer: PolicyServicer) -> None:
    with pytest.raises(NotFound) as unknown:
        await servicer.GetDirective(pb.GetDirectiveRequest(name="nothing"), CONTEXT)
    assert unknown.value.reason == "DIRECTIVE_UNKNOWN"


@pytest.mark.promise(3)
def test_t77_the_service_does_not_start_with_a_directive_that_it_cannot_read(
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "directive.toml").write_text(manifest(name="bad"))
    (bad / "rules.cedar").write_text(FORBID + "when { context.moonPhase == 1 };")
    text = (DIRECTIVES / "vocabulary.cedarschema").read_text()
    (tmp_path / "vocabulary.cedarschema").write_text(text)
    with pytest.raises(SettingsError, match=r"bad/rules\.cedar:3:16: LAPD-9.*moonPhase"):
        load(settings_with(tmp_path))


def test_the_service_does_not_start_without_directives_or_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="vocabulary"):
        load(settings_with(tmp_path))
    text = (DIRECTIVES / "vocabulary.cedarschema").read_text()
    (tmp_path / "vocabulary.cedarschema").write_text(text)
    with pytest.raises(SettingsError, match="holds no directive"):
        load(settings_with(tmp_path))


def settings_with(directives: Path) -> PolicySettings:
    return PolicySettings.model_construct(
        directives=directives, registry=DIRECTIVES / "demo-registry.toml"
    )
