"""AuthZEN beside the rest: switched on by the settings, answering as the broker's dry run, off the record."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from countersign.installation.certificates import TRUST_DOMAIN
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from countersign.type.v1.decision_pb2 import Decision
from policy.__main__ import running
from policy.config import AuthzenSettings, PolicySettings
from shared.identity import SpiffeId
from shared.settings import ListenSettings, SettingsError
from support.agencies import AgencyAtWork, at_work
from support.authzen import enforcing
from support.authzen_searches import asks, context
from support.brokers import own_case
from support.directives import DIRECTIVES, TRAINED
from support.installations import LAPD, InstallationUnderTest
from support.nats_servers import NatsUnderTest

EVALUATION = "/access/v1/evaluation"


async def size_of(lapd: AgencyAtWork) -> int:
    return len([record async for record in lapd.ledger.entries(ListEntriesRequest())])


@pytest.mark.parametrize("officer", [TRAINED, "lapd-40777"])
async def test_an_agency_hears_what_its_dry_run_would_say_and_nothing_is_recorded(
    installation: InstallationUnderTest, officer: str
) -> None:
    url = f"https://127.0.0.1:{installation.ports.authzen}"
    tls = installation.layout.tls(SpiffeId(TRUST_DOMAIN, "agency", LAPD))
    facts = own_case()
    async with at_work(installation, LAPD) as lapd, enforcing(url, tls) as pep:
        dry_run = await lapd.client.check(facts, lapd.provider.token(officer, facts.search_id))
        before = await size_of(lapd)
        question = asks(
            subject={"type": "officer", "id": officer, "properties": {"agency": LAPD}},
            context=context(offence={"nibrs": "120", "severity": "felony"}, narrative="Robbed."),
        )
        answer = await pep.evaluation(question)
        assert await size_of(lapd) == before
    answer["context"].pop("obligations", None)
    said = ParseDict(answer["context"], Decision())
    assert list(said.verdicts) == list(dry_run.decision.verdicts)
    assert said.policy_set_sha256 == dry_run.decision.policy_set_sha256
    assert answer["decision"] == (dry_run.decision.outcome == 1)


def settings(nats: NatsUnderTest, **authzen: Any) -> PolicySettings:
    bus = nats.bus_settings("service", "policy")
    tls = nats.certificates.tls("service", "policy", listens=True)
    return PolicySettings(
        trust_domain="countersign.test",
        listen=ListenSettings(address="127.0.0.1:0", tls=tls),
        bus=bus.model_copy(update={"tls": tls}),
        registry=DIRECTIVES / "demo-registry.toml",
        directives=DIRECTIVES,
        authzen=AuthzenSettings(address="127.0.0.1:0", tls=tls, **authzen) if authzen else None,
    )


async def test_authzen_is_off_unless_the_settings_have_it(nats_server: NatsUnderTest) -> None:
    async with running(settings(nats_server)) as policy:
        assert policy.authzen is None


async def test_only_the_broker_may_ask_unless_agencies_are_named(
    nats_server: NatsUnderTest, tmp_path: Path
) -> None:
    file = tmp_path / "port"
    async with running(settings(nats_server, port_file=file)) as policy:
        assert policy.authzen is not None
        url = f"https://127.0.0.1:{int(file.read_text())}"
        assert url == policy.authzen.url
        async with enforcing(url, nats_server.certificates.tls("service", "broker")) as broker:
            assert (await broker.evaluation(asks()))["decision"] is True
        async with enforcing(url, nats_server.certificates.tls("agency", LAPD)) as lapd:
            answer = await lapd.post(EVALUATION, asks())
            assert (answer.status, answer.reason) == (403, "CALLER_NOT_ALLOWED")
            metadata = await lapd.send("GET", "/.well-known/authzen-configuration")
            assert json.loads(metadata.body)["policy_decision_point"] == url


async def test_an_agency_that_nobody_knows_stops_the_start(nats_server: NatsUnderTest) -> None:
    with pytest.raises(SettingsError, match=r"authzen\.agencies: CA0000000"):
        async with running(settings(nats_server, agencies=("CA0000000",))):
            raise AssertionError("it started")
