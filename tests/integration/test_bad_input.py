"""Bad requests and bad pictures, sent to the real thing: each ends as its contract says, on record."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Final

import grpc
import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import BrokerServiceStub
from countersign.client import verify_decision
from countersign.client.prepare import PreparedSearch
from countersign.connector.v1 import connector_pb2 as connector
from countersign.type.v1.decision_pb2 import VerdictOutcome
from countersign.type.v1.search_pb2 import SealedPayload
from shared.errors import Conflict, InvalidRequest, Overloaded
from shared.rpc import MESSAGE_BYTES_MAX, open_channel, service_error
from shared.sealing import SEALED_BYTES_MAX
from support import pictures
from support.agencies import (
    DECIDED_AND_ANSWERED,
    AgencyAtWork,
    at_work,
    orders_on_the_bus,
    stopped,
)
from support.brokers import own_case
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.waiting import until

AT_ONCE: Final = 8
"""Submissions of one search at the same time."""


@pytest.fixture
async def lapd(installation: InstallationUnderTest) -> AsyncIterator[AgencyAtWork]:
    """LAPD's system."""
    async with at_work(installation, LAPD) as agency:
        yield agency


def request_of(lapd: AgencyAtWork) -> pb.SubmitSearchRequest:
    """A good request."""
    prepared = lapd.sealed(own_case(), pictures.probe())
    return prepared.request(lapd.provider.token("lapd-40123", prepared.search_id))


async def submit_raw(lapd: AgencyAtWork, request: pb.SubmitSearchRequest) -> None:
    """Sends what no client of ours would send; raises ServiceError."""
    settings = lapd.settings
    options = (("grpc.max_send_message_length", -1),)
    async with open_channel(settings.broker.address, settings.tls, options) as channel:
        try:
            await BrokerServiceStub(channel).SubmitSearch(request, timeout=20)
        except grpc.aio.AioRpcError as error:
            raise service_error(error) from error


async def test_every_field_that_breaks_a_rule_is_named_at_once(lapd: AgencyAtWork) -> None:
    request = request_of(lapd)
    facts = request.facts
    facts.search_id = "not-a-uuid"
    facts.origin_agency = "LAPD"
    facts.beneficiary_agency = "ca0194200"
    facts.system = "LACRIS"
    facts.gallery = "../lacris"
    facts.purpose = 99  # type: ignore[assignment]  # no such purpose
    facts.ClearField("suspicion")
    facts.ClearField("provenance")
    facts.ClearField("capture_mode")
    facts.offence.nibrs_code = "robbery"
    facts.case_number = "1" * 65
    facts.narrative = "x" * 4001
    facts.candidates_max = 51
    facts.expires_after.FromTimedelta(timedelta(days=8))
    request.officer_token = ""
    request.sealed_probe.kem_id = 16
    request.answer_public_key = bytes(31)
    request.salt = bytes(33)
    request.wait.FromTimedelta(timedelta(seconds=61))
    with pytest.raises(InvalidRequest) as caught:
        await submit_raw(lapd, request)
    assert caught.value.reason == "INVALID_REQUEST"
    of_facts = (
        *("search_id", "origin_agency", "beneficiary_agency", "system", "gallery", "purpose"),
        *("suspicion", "provenance", "capture_mode", "offence.nibrs_code", "case_number"),
        *("narrative", "candidates_max", "expires_after"),
    )
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {f"facts.{name}" for name in of_facts} | {
        *("officer_token", "sealed_probe.kem_id", "answer_public_key", "salt", "wait")
    }
    assert all(violation.description for violation in caught.value.violations)


@pytest.mark.parametrize(("seconds", "nanos"), [(10**15, 0), (0, -1), (0, 10**9)])
async def test_attack_a_time_that_is_none_would_be_on_record_for_ever(
    lapd: AgencyAtWork, seconds: int, nanos: int
) -> None:
    """Nobody could read the entry as JSON, nor any page that it is on."""
    request = request_of(lapd)
    circumstances = request.facts.circumstances
    for time in (circumstances.instrument.expires_at, circumstances.emergency.began_at):
        time.seconds, time.nanos = seconds, nanos
    with pytest.raises(InvalidRequest) as caught:
        await submit_raw(lapd, request)
    assert {violation.field for violation in caught.value.violations} == {
        "facts.circumstances.instrument.expires_at",
        "facts.circumstances.emergency.began_at",
    }


async def test_an_empty_request_names_what_is_missing(lapd: AgencyAtWork) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await submit_raw(lapd, pb.SubmitSearchRequest())
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"facts", "officer_token", "sealed_probe", "answer_public_key", "salt"}


async def test_a_probe_over_its_bound_is_named_and_one_at_it_is_taken(lapd: AgencyAtWork) -> None:
    request = request_of(lapd)
    request.sealed_probe.ciphertext = bytes(SEALED_BYTES_MAX + 1)
    with pytest.raises(InvalidRequest) as caught:
        await submit_raw(lapd, request)
    assert [violation.field for violation in caught.value.violations] == ["sealed_probe.ciphertext"]
    assert not await lapd.kinds(request.facts.search_id)
    # At the bound it goes all the way to the connector, which cannot open it.
    request.sealed_probe.ciphertext = bytes(SEALED_BYTES_MAX)
    await submit_raw(lapd, request)
    search = await lapd.client.wait(request.facts.search_id)
    assert search.failure_reason == connector.FAILURE_REASON_PROBE_UNREADABLE


async def test_a_message_over_the_bound_is_refused_unread(lapd: AgencyAtWork) -> None:
    request = request_of(lapd)
    request.sealed_probe.ciphertext = bytes(MESSAGE_BYTES_MAX)
    with pytest.raises(Overloaded, match="larger than max"):
        await submit_raw(lapd, request)
    prepared = lapd.sealed(own_case(), pictures.probe())
    too_much = PreparedSearch(
        prepared.facts,
        SealedPayload(ciphertext=bytes(MESSAGE_BYTES_MAX)),
        prepared.answer_key,
        prepared.salt,
    )
    with pytest.raises(Overloaded, match="larger than max"):
        await lapd.submit(too_much)
    assert not await lapd.kinds(prepared.search_id)


async def test_a_page_token_that_was_not_given_is_refused(lapd: AgencyAtWork) -> None:
    for call in (lapd.client.list, lapd.client.systems):
        with pytest.raises(InvalidRequest) as caught:
            await call(page_token="nonsense")
        assert caught.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"no picture at all", connector.FAILURE_REASON_NOT_AN_IMAGE),
        (lambda: b"", connector.FAILURE_REASON_NOT_AN_IMAGE),
        (lambda: pictures.probe()[:2000], connector.FAILURE_REASON_NOT_AN_IMAGE),
        (pictures.png_bomb, connector.FAILURE_REASON_IMAGE_TOO_LARGE),
        (pictures.jpeg_bomb, connector.FAILURE_REASON_IMAGE_TOO_LARGE),
        (pictures.jpeg_2000_bomb, connector.FAILURE_REASON_IMAGE_TOO_LARGE),
        (pictures.blank, connector.FAILURE_REASON_NO_FACE),
        (pictures.two_faces, connector.FAILURE_REASON_SEVERAL_FACES),
        (pictures.small_face, connector.FAILURE_REASON_LOW_QUALITY),
    ],
    ids=(
        *("no-image", "empty", "cut-off", "png-bomb", "jpeg-bomb", "jpeg-2000-bomb"),
        *("no-face", "several-faces", "small-face"),
    ),
)
async def test_a_picture_that_cannot_be_searched_is_a_recorded_failure(
    lapd: AgencyAtWork, make: Callable[[], bytes], reason: connector.FailureReason.ValueType
) -> None:
    prepared = lapd.sealed(own_case(), make())
    await lapd.submit(prepared)
    search, opened = await lapd.ended(prepared)
    assert (search.state, search.failure_reason) == (pb.SEARCH_STATE_FAILED, reason)
    assert opened.candidates is None
    assert opened.failure is not None
    assert opened.failure.reason == reason
    assert lapd.end_of(search).search_failed.reason == reason
    assert await lapd.kinds(prepared.search_id) == ["search_decided", "search_failed"]


async def test_a_probe_sealed_for_another_search_is_not_opened(lapd: AgencyAtWork) -> None:
    """Else whoever sees the bus could have a probe searched again under an id of their own."""
    sealed = lapd.sealed(own_case(), pictures.probe())
    own = lapd.sealed(own_case(), b"")
    stolen = PreparedSearch(own.facts, sealed.sealed_probe, own.answer_key, own.salt)
    await lapd.submit(stolen)
    search, _ = await lapd.ended(stolen)
    assert search.failure_reason == connector.FAILURE_REASON_PROBE_UNREADABLE


async def test_an_answer_key_that_nobody_could_use_is_a_recorded_failure(
    lapd: AgencyAtWork,
) -> None:
    request = request_of(lapd)
    request.answer_public_key = bytes(32)
    await submit_raw(lapd, request)
    search = await lapd.client.wait(request.facts.search_id)
    assert search.failure_reason == connector.FAILURE_REASON_ORDER_REJECTED
    assert lapd.end_of(search).search_failed.check == "REQUEST_INVALID"


@pytest.mark.promise(8)
async def test_the_same_id_is_the_same_search_however_often_and_at_once(lapd: AgencyAtWork) -> None:
    prepared = lapd.sealed(own_case(), pictures.probe())
    first = await asyncio.gather(*(lapd.submit(prepared) for _ in range(AT_ONCE)))
    ended, opened = await lapd.ended(prepared)
    assert opened.candidates
    again = await lapd.submit(prepared)
    assert again == ended
    receipts = {search.decision_receipt.index for search in (*first, again)}
    assert len(receipts) == 1
    assert await lapd.kinds(prepared.search_id) == DECIDED_AND_ANSWERED


@pytest.mark.promise(1)
async def test_the_same_id_with_other_content_is_a_recorded_conflict(
    lapd: AgencyAtWork, installation: InstallationUnderTest
) -> None:
    prepared = lapd.sealed(own_case(), pictures.probe())
    await lapd.submit(prepared)
    search, _ = await lapd.ended(prepared)
    facts = own_case(search_id=prepared.search_id, narrative="Another story.")
    with pytest.raises(Conflict) as caught:
        await lapd.submit(lapd.sealed(facts, pictures.probe()))
    assert caught.value.reason == "SEARCH_ID_TAKEN"
    *before, rejected = await lapd.entries(prepared.search_id)
    event = rejected.request_rejected
    assert event.reason == "SEARCH_ID_TAKEN"
    assert event.recorded_request_sha256 == before[0].search_decided.request_sha256
    assert event.rejected_request_sha256 not in (b"", event.recorded_request_sha256)
    assert caught.value.metadata == {
        "recorded_request_sha256": event.recorded_request_sha256.hex(),
        "rejected_request_sha256": event.rejected_request_sha256.hex(),
    }
    assert await lapd.client.get(prepared.search_id) == search

    facts = own_case(
        search_id=prepared.search_id, origin_agency=BURBANK, beneficiary_agency=BURBANK
    )
    async with at_work(installation, BURBANK) as burbank:
        with pytest.raises(Conflict) as caught:
            await burbank.submit(burbank.sealed(facts, b"other"), "burbank-117")
    # Another agency learns that the id is taken, not what for.
    assert set(caught.value.metadata) == {"rejected_request_sha256"}
    rejected = (await lapd.entries(prepared.search_id))[-1]
    assert rejected.request_rejected.caller.endswith(f"/agency/{BURBANK}")


@pytest.mark.promise(1)
@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("changes", "officer", "fault"),
    [
        ({"beneficiary_agency": None}, "lapd-40123", "BENEFICIARY_UNKNOWN"),
        ({"beneficiary_agency": "XX0000000"}, "lapd-40123", "UNKNOWN_AGENCY"),
        ({"system": "no-such-system"}, "lapd-40123", "UNKNOWN_SYSTEM"),
        ({"gallery": "no-such-gallery"}, "lapd-40123", "UNKNOWN_GALLERY"),
        ({"gallery": "facefind-web"}, "lapd-40123", "UNKNOWN_GALLERY"),
        ({}, "lapd-99999", "UNKNOWN_OFFICER"),
    ],
    ids=("nobody", "beneficiary", "system", "gallery", "gallery-of-another-system", "officer"),
)
async def test_what_the_registry_does_not_know_is_refused_on_record(
    lapd: AgencyAtWork, changes: dict[str, object], officer: str, fault: str
) -> None:
    prepared = lapd.sealed(own_case(**changes), pictures.probe())
    search = await lapd.submit(prepared, officer)
    assert search.state == pb.SEARCH_STATE_REFUSED
    decided = verify_decision(search, lapd.client.trust).search_decided
    untold = [
        verdict.faults
        for verdict in decided.decision.verdicts
        if verdict.outcome != VerdictOutcome.VERDICT_OUTCOME_PERMIT
    ]
    assert any(fault in faults for faults in untold), decided.decision
    assert await lapd.kinds(prepared.search_id) == ["search_decided"]


@pytest.mark.promise(1)
async def test_a_search_that_nobody_answers_expires_or_is_withdrawn_on_record(
    lapd: AgencyAtWork, installation: InstallationUnderTest
) -> None:
    facts = own_case()
    facts.expires_after.FromTimedelta(timedelta(seconds=1))
    late, cancelled = (lapd.sealed(one, pictures.probe()) for one in (facts, own_case()))
    async with orders_on_the_bus(installation) as orders:
        with stopped(installation.processes["connector-lacris"]):
            for prepared in (late, cancelled):
                assert (await lapd.submit(prepared)).state == pb.SEARCH_STATE_PENDING
            assert await orders.waits(cancelled.search_id)
            withdrawn = await lapd.client.cancel(cancelled.search_id)
            assert withdrawn.state == pb.SEARCH_STATE_WITHDRAWN
            assert lapd.end_of(withdrawn).HasField("search_withdrawn")
            expired = await lapd.client.wait(late.search_id)
            assert expired.state == pb.SEARCH_STATE_EXPIRED
            assert lapd.end_of(expired).search_expired.deadline == expired.deadline
            for prepared in (late, cancelled):
                assert await until(partial(orders.gone, prepared.search_id))
    # The connector has come back, answers, and has nothing to say of these.
    after = lapd.sealed(own_case(), pictures.probe())
    await lapd.submit(after)
    await lapd.ended(after)
    assert await lapd.client.cancel(late.search_id) == expired, "it had ended before"
    assert await lapd.client.get(cancelled.search_id) == withdrawn
    assert await lapd.kinds(late.search_id) == ["search_decided", "search_expired"]
    assert await lapd.kinds(cancelled.search_id) == ["search_decided", "search_withdrawn"]
