"""Who gets as far as the AuthZEN port, what bounds a request, and what an error looks like."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from countersign.installation.files import write_public
from countersign.installation.pki import Authority
from policy.authzen.front import Front
from policy.authzen.port import BODY_BYTES_MAX, REQUESTS_OF_ONE_CALLER_MAX, Bounds, Port
from policy.authzen.questions import Answer, Question
from shared.errors import Unavailable
from shared.identity import SpiffeId
from shared.settings import SettingsError
from support.authzen import (
    CedarDomain,
    Enforcement,
    Reply,
    certification,
    client_tls,
    decision_point,
    enforcing,
)
from support.doors import LAPD, LASD, SECRET, Pki
from support.signals import Signals
from support.waiting import until

EVALUATION = "/access/v1/evaluation"
METADATA = "/.well-known/authzen-configuration"
QUESTION = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "record", "id": "record-1"},
}


ONE = {"type": "user", "id": "one"}


class DomainThatIsTold(CedarDomain):
    """Holds, or raises, before it permits everything."""

    def __init__(self) -> None:
        super().__init__("", [], [])
        self.raises: Exception | None = None
        self.subjects: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def decide(self, asker: SpiffeId, question: Question) -> Answer:
        """Does what the test says."""
        self.subjects.append(question.subject.id)
        await self.go_on.wait()
        if self.raises:
            raise self.raises
        return Answer(True)


@pytest.fixture(name="domain")
def _domain() -> DomainThatIsTold:
    return DomainThatIsTold()


@pytest.fixture(name="port")
async def _port(domain: DomainThatIsTold, pki: Pki) -> AsyncIterator[Port]:
    async with decision_point(domain, pki) as port:
        yield port


@pytest.fixture(name="pep")
async def _pep(port: Port, pki: Pki) -> AsyncIterator[Enforcement]:
    async with enforcing(port.url, pki.issue("service", "broker")) as pep:
        yield pep


async def refused(url: str, context: ssl.SSLContext) -> None:
    """Nobody is answered who is not known, not even with an error."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.get(f"{url}{METADATA}", ssl=context)


async def test_caller_without_a_certificate_of_the_authority_is_not_let_in(
    port: Port, pki: Pki, domain: DomainThatIsTold
) -> None:
    others = Authority.create("countersign.test", pki.now)
    stranger = pki.issue("service", "broker", authority=others, file="stranger")
    await refused(port.url, client_tls(None, pki.folder / "authority.pem"))
    await refused(port.url, client_tls(stranger, stranger.authority))
    assert not domain.subjects


@pytest.mark.parametrize(
    ("kind", "name", "domain_name", "status"),
    [
        ("service", "broker", "countersign.test", 200),
        ("agency", LAPD, "countersign.test", 200),
        # Not named by the operator.
        ("agency", LASD, "countersign.test", 403),
        ("service", "ledger", "countersign.test", 403),
        ("connector", "lacris", "countersign.test", 403),
        ("oversight", "police-commission", "countersign.test", 403),
        ("operator", "up", "countersign.test", 403),
        ("service", "broker", "elsewhere.test", 403),
        ("nobody", "broker", "countersign.test", 401),
    ],
)
async def test_only_the_broker_and_agencies_that_are_named_may_ask(
    port: Port,
    pki: Pki,
    domain: DomainThatIsTold,
    kind: Any,
    name: str,
    domain_name: str,
    status: int,
) -> None:
    tls = pki.issue(kind, name, domain=domain_name)
    async with enforcing(port.url, tls) as pep:
        for path in (EVALUATION, "/access/v1/evaluations"):
            assert (await pep.post(path, QUESTION)).status == status
        for sought in ("subject", "resource", "action"):
            answer = await pep.post(f"/access/v1/search/{sought}", QUESTION)
            assert answer.status == status
        known = status != 401 and domain_name == "countersign.test"
        assert (await pep.send("GET", METADATA)).status == (200 if known else status)
        assert (await pep.send("GET", "/access/v1/other")).status == (404 if known else status)
    assert bool(domain.subjects) == (status == 200)


async def test_metadata_says_what_is_where(pep: Enforcement, port: Port) -> None:
    answer = await pep.send("GET", METADATA)
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    assert answer.json == {
        "policy_decision_point": port.url,
        "access_evaluation_endpoint": f"{port.url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{port.url}/access/v1/evaluations",
        "search_subject_endpoint": f"{port.url}/access/v1/search/subject",
        "search_resource_endpoint": f"{port.url}/access/v1/search/resource",
        "search_action_endpoint": f"{port.url}/access/v1/search/action",
    }


async def test_metadata_names_the_url_that_the_operator_gave(pki: Pki) -> None:
    given = "https://policy.example.gov:8443"
    async with (
        decision_point(certification(), pki, url=given) as port,
        enforcing(f"https://127.0.0.1:{port.number}", pki.issue("service", "broker")) as pep,
    ):
        said = (await pep.send("GET", METADATA)).json
    assert said["policy_decision_point"] == given
    assert said["access_evaluation_endpoint"] == f"{given}/access/v1/evaluation"


@pytest.mark.parametrize("path", [EVALUATION, "/nowhere", METADATA])
async def test_request_id_comes_back_with_every_answer(pep: Enforcement, path: str) -> None:
    for given in (
        "bfe9eb29-ab87-4ca3-be83-a1d5d8305716",
        "a b;c=\N{LATIN SMALL LETTER E WITH ACUTE}",
    ):
        answer = await pep.post(path, QUESTION, X_Request_ID=given)
        assert answer.headers["X-Request-ID"] == given
    assert "X-Request-ID" not in (await pep.post(path, QUESTION)).headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"subject": NaN}',
        b'{"subject": 1e400}',
        b'{"subject": 1, "subject": 2}',
        b'{"subject": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
async def test_what_is_no_json_object_is_refused(pep: Enforcement, body: bytes) -> None:
    answer = await pep.post(EVALUATION, body)
    assert (answer.status, answer.reason) == (400, "REQUEST_UNREADABLE")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body.startswith(b"REQUEST_UNREADABLE: ")


async def test_a_refusal_names_each_field(pep: Enforcement) -> None:
    answer = await pep.post(EVALUATION, {**QUESTION, "resource": {"type": "record", "id": 7}})
    assert answer.body.decode().splitlines() == [
        "INVALID_REQUEST: a field has the wrong type",
        "resource.id: must be a string, and not empty",
    ]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_does_not_say_that_it_is_json_is_refused(pep: Enforcement, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    body = json.dumps(QUESTION).encode()
    answer = await pep.send("POST", EVALUATION, data=body, headers=headers)
    assert answer.status == 400
    for said in ("application/json", "application/json; charset=utf-8"):
        answer = await pep.send("POST", EVALUATION, data=body, headers={"Content-Type": said})
        assert answer.status == 200


async def test_paths_have_one_method(pep: Enforcement) -> None:
    answer = await pep.send("GET", EVALUATION)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    answer = await pep.post(METADATA, {})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert (await pep.post("/access/v1/evaluation/", QUESTION)).status == 404


async def test_a_body_past_the_bound_is_not_read(
    pep: Enforcement, domain: DomainThatIsTold
) -> None:
    filler = {**QUESTION, "filler": "x" * BODY_BYTES_MAX}
    assert (await pep.post(EVALUATION, filler)).status == 413
    assert not domain.subjects
    assert (await pep.post(EVALUATION, QUESTION)).status == 200


async def test_a_body_that_does_not_come_is_not_waited_for(
    pki: Pki, domain: DomainThatIsTold
) -> None:
    never = asyncio.Event()

    async def begins() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with (
        decision_point(domain, pki, bounds=Bounds(body_s=0.05)) as port,
        enforcing(port.url, pki.issue("service", "broker")) as pep,
    ):
        headers = {"Content-Type": "application/json"}
        answer = await pep.send("POST", EVALUATION, data=begins(), headers=headers)
        assert answer.status == 408
        assert answer.headers["Connection"] == "close"
        assert port.in_flight == 0


async def test_an_old_connection_ends_with_its_next_answer(pki: Pki) -> None:
    for connection_s, kept in ((0.0, False), (1000.0, True)):
        async with (
            decision_point(certification(), pki, bounds=Bounds(connection_s=connection_s)) as port,
            enforcing(port.url, pki.issue("service", "broker")) as pep,
        ):
            answer = await pep.post(EVALUATION, QUESTION)
            assert answer.json == {"decision": True}
            assert ("Connection" not in answer.headers) == kept


async def test_one_caller_has_a_bound_and_leaves_room_for_others(
    pep: Enforcement, port: Port, pki: Pki, domain: DomainThatIsTold
) -> None:
    domain.go_on.clear()
    waiting = [
        asyncio.create_task(pep.post(EVALUATION, QUESTION))
        for _ in range(REQUESTS_OF_ONE_CALLER_MAX)
    ]

    async def turned_away() -> Reply | None:
        answer = await asyncio.wait_for(pep.post(EVALUATION, QUESTION), 5)
        return answer if answer.status == 503 else None

    async def all_wait() -> bool:
        return port.in_flight == REQUESTS_OF_ONE_CALLER_MAX

    await until(all_wait)
    answer = await until(turned_away)
    assert (answer.reason, answer.headers["Retry-After"]) == ("CALLER_BUSY", "1")
    async with enforcing(port.url, pki.issue("agency", LAPD)) as other:
        others = asyncio.create_task(other.post(EVALUATION, QUESTION))
        domain.go_on.set()
        assert (await others).status == 200
    assert [one.status for one in await asyncio.gather(*waiting)] == [200] * len(waiting)


async def test_one_question_is_answered_between_many(
    pep: Enforcement, port: Port, domain: DomainThatIsTold
) -> None:
    """Whoever has 64 to ask does not keep others waiting until the last."""
    domain.go_on.clear()
    many = asyncio.create_task(
        pep.post("/access/v1/evaluations", {**QUESTION, "evaluations": [{}] * 64})
    )
    one = asyncio.create_task(pep.post(EVALUATION, {**QUESTION, "subject": ONE}))

    async def both_wait() -> bool:
        return port.in_flight == 2

    await until(both_wait)
    domain.go_on.set()
    assert (await one).status == (await many).status == 200
    assert domain.subjects.index("one") < 10


async def test_others_come_in_between_two_questions(domain: DomainThatIsTold) -> None:
    """The broker's, over the bus: searches wait for them."""
    seen: list[int] = []

    async def other() -> None:
        while True:
            seen.append(len(domain.subjects))
            await asyncio.sleep(0)

    others = asyncio.create_task(other())
    body = json.dumps({**QUESTION, "evaluations": [{}] * 64}).encode()
    broker = SpiffeId("countersign.test", "service", "broker")
    await Front(domain).answer("/access/v1/evaluations", broker, body)
    others.cancel()
    assert set(range(1, 64)) <= set(seen)


async def test_a_bug_is_no_decision_and_tells_nothing(
    pep: Enforcement, domain: DomainThatIsTold, signals: Signals
) -> None:
    domain.raises = ValueError(SECRET)
    for path, question in (
        (EVALUATION, QUESTION),
        ("/access/v1/evaluations", {**QUESTION, "evaluations": [{}, {}]}),
    ):
        answer = await pep.post(path, question)
        assert (answer.status, answer.body) == (500, b"INTERNAL: internal error\n")
    assert "call failed" in [line["message"] for line in signals.lines]
    assert SECRET not in signals.everything()


async def test_a_part_that_does_not_answer_is_no_decision(
    pep: Enforcement, domain: DomainThatIsTold
) -> None:
    domain.raises = Unavailable("AWAY", "come again", retry_after_s=7)
    answer = await pep.post(EVALUATION, QUESTION)
    assert (answer.status, answer.reason, answer.headers["Retry-After"]) == (503, "AWAY", "7")


async def test_a_request_is_one_span_of_the_callers_trace_and_is_counted(
    pep: Enforcement, signals: Signals
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    await pep.post(EVALUATION, QUESTION, traceparent=f"00-{trace}-b7ad6b7169203331-01")
    await pep.post("/who/is/Jane-Doe", QUESTION)
    span = signals.named("POST /access/v1/evaluation")
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == trace
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/access/v1/evaluation",
        "http.response.status_code": 200,
    }
    points = signals.points()["http.server.request.duration"]
    assert {
        (p.attributes["http.route"], p.attributes["http.response.status_code"]) for p in points
    } == {
        ("/access/v1/evaluation", 200),
        ("other", 404),
    }
    assert "Jane-Doe" not in signals.everything()


async def test_renewed_certificates_and_authorities_are_taken_while_it_runs(pki: Pki) -> None:
    async with decision_point(certification(), pki) as port:
        before = pki.issue("service", "broker", file="before")
        old = (pki.folder / "authority.pem").read_bytes()
        async with enforcing(port.url, before) as pep:
            assert (await pep.evaluation(QUESTION)) == {"decision": True}
        pki.authority = Authority.create("countersign.test", pki.now)
        write_public(pki.folder / "authority.pem", pki.authority.certificate_pem)
        pki.issue("service", "policy", listens=True)
        async with enforcing(port.url, pki.issue("service", "broker", file="after")) as pep:
            assert (await pep.evaluation(QUESTION)) == {"decision": True}
        await refused(port.url, client_tls(before, pki.folder / "authority.pem"))
        write_public(pki.folder / "old.pem", old)
        await refused(port.url, client_tls(before, pki.folder / "old.pem"))


async def test_what_cannot_be_listened_on_stops_the_start(port: Port, pki: Pki) -> None:
    with pytest.raises(SettingsError, match="cannot listen"):
        async with decision_point(certification(), pki, port_number=port.number):
            raise AssertionError("listens twice")
