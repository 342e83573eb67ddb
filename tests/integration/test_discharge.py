"""An agency says that its duties were done: from the command to what is counted as open."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from countersign.cli.main import exit_code
from shared.errors import NotAuthentic, NotFound
from support.agencies import AgencyAtWork, at_work
from support.brokers import LASD, OFFICER, own_case
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.pictures import probe
from support.waiting import until

RPC: Final = "countersign.broker.v1.BrokerService/DischargeObligation"


@pytest.fixture
async def lapd(installation: InstallationUnderTest) -> AsyncIterator[AgencyAtWork]:
    """LAPD's system."""
    async with at_work(installation, LAPD) as agency:
        yield agency


class Terminal:
    """Runs `countersign` as LAPD's system would."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, and what was printed."""
        code = await asyncio.to_thread(exit_code, list(arguments))
        said = self._capsys.readouterr()
        return code, said.out, said.err

    async def open_duties(self, search_id: str, kind: str) -> int:
        """How many decisions on the search have such a duty open, as the query index has it."""
        asked = ("--obligation", kind, "--obligation-state", "open", "--kind", "search_decided")

        async def answered() -> Any:
            code, found, _ = await self.run(
                "ledger", "count", "--search", search_id, *asked, "--json"
            )
            return json.loads(found) if code == 0 else None

        return int((await until(answered)).get("entries", 0))


@pytest.fixture
def terminal(
    installation: InstallationUnderTest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Terminal:
    """A shell at LAPD."""
    monkeypatch.setenv("COUNTERSIGN_CONFIG", str(installation.client(LAPD)))
    return Terminal(capsys)


async def decided(lapd: AgencyAtWork) -> str:
    """A search that was permitted, with the duties that came with it."""
    prepared = lapd.sealed(own_case(), probe())
    await lapd.submit(prepared)
    return prepared.search_id


async def test_a_duty_is_open_until_the_agency_says_that_it_was_done(
    lapd: AgencyAtWork, terminal: Terminal
) -> None:
    search_id = await decided(lapd)
    log = ("search", "discharge", search_id, "log", "--officer", OFFICER)
    assert await terminal.open_duties(search_id, "log") == 1
    code, found, said = await terminal.run(*log, "--narrative", "Kept with the case.", "--json")
    assert code == 0, said
    first = json.loads(found)
    assert (first["obligation"]["kind"], first["existing"]) == ("log", False)
    assert await terminal.open_duties(search_id, "log") == 0
    code, found, _ = await terminal.run(*log, "--json")
    assert code == 0
    again = json.loads(found)
    assert again["existing"]
    assert again["receipt"]["index"] == first["receipt"]["index"]
    assert (await lapd.kinds(search_id)).count("obligation_discharged") == 1
    code, found, _ = await terminal.run(*log)
    assert code == 0
    assert "was on record as done before" in found


async def test_which_duty_is_meant_must_be_clear(lapd: AgencyAtWork, terminal: Terminal) -> None:
    search_id = await decided(lapd)
    command, who = ("search", "discharge", search_id), ("--officer", OFFICER)
    code, found, said = await terminal.run(*command, "notice", *who)
    assert (code, found) == (2, "")
    assert "--party" in said
    assert "--rule" in said
    code, found, said = await terminal.run(*command, "notice", *who, "--party", LASD)
    assert code == 0, said
    assert f"of {LASD} is done" in found
    code, found, said = await terminal.run(*command, "retain", *who)
    assert (code, found) == (2, "")
    assert "no such duty" in said
    assert (await lapd.kinds(search_id)).count("obligation_discharged") == 1


@pytest.mark.promise(7)
async def test_another_agency_is_turned_away_on_record_and_discharges_nothing(
    lapd: AgencyAtWork, installation: InstallationUnderTest
) -> None:
    search_id = await decided(lapd)
    duty = (await lapd.client.get(search_id)).decision.obligations[0]
    async with at_work(installation, BURBANK) as burbank:
        for provider, error, reason in (
            (burbank.provider, NotFound, "SEARCH_UNKNOWN"),
            (lapd.provider, NotAuthentic, "OFFICER_TOKEN_FOREIGN"),
        ):
            token = provider.token("burbank-117", search_id)
            with pytest.raises(error) as caught:
                await burbank.client.discharge(search_id, duty, token)
            assert caught.value.reason == reason
            event = (await lapd.newest("request_rejected")).request_rejected
            assert (event.rpc, event.reason) == (RPC, reason)
            assert event.caller.endswith(f"/agency/{BURBANK}")
    assert "obligation_discharged" not in await lapd.kinds(search_id)
