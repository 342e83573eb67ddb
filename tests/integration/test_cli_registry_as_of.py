"""Each decision is explained, and replayed, by what owners had registered when it was made."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.record import decided_entry
from countersign.cli.main import exit_code
from countersign.client.documents import RegistrationClient
from countersign.installation.ports import address
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from support.directives import DIRECTIVES, LAPD, TRAINED, ordinary
from support.disclosures import (
    AUTHORITY,
    COMMISSION,
    POLICE,
    REASON,
    Caller,
    LedgerUnderTest,
    ledger_in,
)
from support.documents import NAME
from support.following_brokers import provider_in_toml
from support.ledgers import search_id
from support.nats_servers import NatsUnderTest
from support.publishing import ALL, LedgerOfAScene, Scene, on_record, ready, write_trust
from support.registrations import LASD, demonstration, document, signed, signer
from support.terminals import Said

pytestmark = [pytest.mark.promise(7), pytest.mark.promise(9)]

TIMEOUT_S = 60.0
GROUND = ("--authority", AUTHORITY, "--reason", REASON)
DEMONSTRATION = demonstration()
LAPD_PUBLIC, ACTIVE = DEMONSTRATION[LAPD]
LASD_PUBLIC, LASD_OFFICERS = DEMONSTRATION[LASD]
SUSPENDED = ACTIVE.replace("active = true", "active = false", 1)
OVERSIGHT = (
    '\n[oversight.police-commission]\nname = "Commission"\n'
    'jurisdictions = ["US-CA"]\nrights = ["disclose", "expunge"]\n'
)
UNEXPLAINED = "how its officer stood is not known here"


@dataclass
class Office:
    """A ledger, a policy service that follows it, owners who register, and who reads all that afterwards."""

    ledger: LedgerUnderTest
    owners: RegistrationClient
    capsys: pytest.CaptureFixture[str]
    lapd: str
    """The department's public part."""
    registered: int = 0
    searched: int = 0

    async def register(self, public: str, officers: str) -> None:
        self.registered += 1
        await self.owners.publish(signed(document(public, officers), self.registered))

    async def search(self, *, falsely: bool = False, **facts: Any) -> Decision:
        """One more search, decided by the policy service and put on record."""
        asked = ordinary(search_id=search_id(self.searched), **facts)
        self.searched += 1
        request = pb.EvaluateRequest(facts=asked, officer=TRAINED)
        request.at.FromDatetime(datetime.now(UTC))
        batch = pb.EvaluateBatchRequest(requests=[request])
        bus = self.ledger.bus
        heard = await bus.request("policy.evaluate", batch, pb.EvaluateBatchResponse, TIMEOUT_S)
        evaluated = heard.responses[0]
        if falsely:
            evaluated.decision.outcome = DecisionOutcome.DECISION_OUTCOME_PERMITTED
            for verdict in evaluated.decision.verdicts:
                verdict.outcome = VerdictOutcome.VERDICT_OUTCOME_PERMIT
        entry: PendingEntry = decided_entry(asked, TRAINED, evaluated, bytes(32), datetime.now(UTC))
        await self.ledger.append(entry)
        return evaluated.decision

    async def said(self, *arguments: object, who: Caller = COMMISSION) -> Said:
        self.capsys.readouterr()
        given = [*arguments, *GROUND, "--json", "--config", self.ledger.config(who)]
        if who == POLICE:
            ground = self.ledger.ground(who)
            token = self.ledger.folder / "token"
            token.write_text(ground.officer_token)
            given += ["--officer-token", token, "--request-id", ground.request_id]
        code = await asyncio.to_thread(exit_code, [str(one) for one in given])
        return Said(code, *self.capsys.readouterr())

    async def explained(self, number: int, who: Caller = COMMISSION) -> Said:
        return await self.said("search", "explain", search_id(number), who=who)

    async def replayed(self, who: Caller = COMMISSION) -> Said:
        """The department's directive that is in force, tried in its own place."""
        own = DIRECTIVES / NAME
        return await self.said("directive", "replay", own, "--sample", 1, who=who)


@pytest.fixture(name="office")
async def _office(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Office]:
    """Owners have registered, and directives are published."""
    signers = {owner: [signer(owner).vkey] for owner in DEMONSTRATION}
    write_trust(tmp_path)
    async with ledger_in(tmp_path, nats_server, signers=signers) as ledger:
        scene = Scene(nats_server, LedgerOfAScene(tmp_path / "ledger.toml"), tmp_path, None)
        vouched = provider_in_toml(ledger.provider.registration())
        lapd = LAPD_PUBLIC.replace("[keys]\n", f"[keys]\n{vouched}")
        async with scene.policy() as policy, scene.client(policy) as client:
            await ready(client.list)
            tls = nats_server.certificates.tls("agency", LAPD)
            door = address(policy.server.port)
            async with RegistrationClient.connect(door, tls) as owners:
                office = Office(ledger, owners, capsys, lapd)
                for owner, (public, officers) in DEMONSTRATION.items():
                    more = OVERSIGHT if owner == "US-CA" else ""
                    await office.register(lapd if owner == LAPD else public + more, officers)
                await on_record(policy, *ALL)
                yield office


async def history(office: Office) -> list[Decision]:
    """Searches between registrations of every sort: an officer's, another agency's, the public part."""
    decisions = [await office.search(), await office.search(purpose=7)]
    await office.register(office.lapd, SUSPENDED)
    decisions.append(await office.search())
    await office.register(LASD_PUBLIC.replace("Sheriff", "Sheriff's"), LASD_OFFICERS)
    await office.register(office.lapd, ACTIVE.replace("2099", "2098"))
    decisions.append(await office.search())
    await office.register(office.lapd, "")
    decisions.append(await office.search())
    await office.register(office.lapd, ACTIVE)
    decisions.append(await office.search())
    return decisions


OUTCOMES = ["PERMITTED", "REFUSED", "REFUSED", "PERMITTED", "REFUSED", "PERMITTED"]


async def everything_is_made_again(office: Office, decisions: int) -> None:
    """The commission reads all officers, the department only its own."""
    for who in (COMMISSION, POLICE):
        for number in range(decisions) if who == COMMISSION else (2, 4):
            said = await office.explained(number, who)
            assert (said.code, said.document["differences"]) == (0, []), (number, said)
        replayed = await office.replayed(who)
        assert (replayed.code, replayed.document["sound"]) == (0, True), replayed
        outcomes = {what: n for what, n in replayed.document["outcomes"].items() if n}
        assert outcomes == {"SAME": decisions}, replayed
        assert replayed.document["cannot_say"] == {}
    read = [one.requests_read for _, one in await office.ledger.entries("requests_read")]
    explaining = [list(one.agencies) for one in read if one.registrations][:decisions]
    # Of whom nothing was registered, it may have been by anybody.
    assert [one == [LAPD] for one in explaining] == [True] * 4 + [False, True]


async def destroy_what_was_registered_first(office: Office) -> None:
    first, *_ = [
        index
        for index, one in await office.ledger.entries("officers_published")
        if one.officers_published.origin_agency == LAPD
    ]
    await office.ledger.approve(POLICE, await office.ledger.request(COMMISSION, first))


async def test_what_is_registered_later_changes_nothing_that_was_decided(office: Office) -> None:
    decisions = await history(office)
    outcomes = [
        DecisionOutcome.Name(one.outcome).removeprefix("DECISION_OUTCOME_") for one in decisions
    ]
    assert outcomes == OUTCOMES
    assert len({one.policy_set_sha256 for one in decisions}) > 4
    assert {"UNKNOWN_OFFICER"} == {fault for one in decisions[4].verdicts for fault in one.faults}
    await everything_is_made_again(office, len(decisions))
    # What is false is told from what nobody can say any more.
    await office.register(office.lapd, SUSPENDED)
    await office.search(falsely=True)
    await destroy_what_was_registered_first(office)
    said = await office.explained(0)
    assert (said.code, said.document["explained"]) == (1, False)
    assert said.document["reason"].startswith(UNEXPLAINED)
    said = await office.explained(3)
    assert said.code == 0, "the officer was registered anew in between"
    said = await office.explained(6)
    assert (said.code, said.document["contradicts"]) == (7, True)
    replayed = await office.replayed()
    assert replayed.code == 7
    unsaid = {reason.partition(":")[0]: n for reason, n in replayed.document["cannot_say"].items()}
    assert unsaid == {UNEXPLAINED: 2, "the record contradicts itself": 1}, replayed
