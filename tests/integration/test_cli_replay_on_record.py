"""`search explain` and `directive replay` over an installation whose directives the ledger holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import broker.__main__ as broker_main
import ledger.__main__ as ledger_main
import policy.__main__ as policy_main
from broker.config import BrokerSettings
from countersign.cli.main import exit_code
from countersign.client.documents import handed_in
from directive.book import directive_folders
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from support.agencies import at_work
from support.brokers import own_case
from support.directives import FORBID, manifest
from support.disclosures import AUTHORITY, REASON
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.pictures import probe
from support.publishing import put_on_record
from support.terminals import Said

GROUND = ("--authority", AUTHORITY, "--reason", REASON)
CASES = (own_case(), own_case(beneficiary_agency=BURBANK))
"""One that is permitted, and one that is refused."""


@contextlib.asynccontextmanager
async def deciding(folder: Path) -> AsyncIterator[InstallationUnderTest]:
    """Its services in this process, without connectors: an installation's own start takes 15 s."""
    whole = InstallationUnderTest(folder, on_record=True)
    config = whole.layout.config
    whole.processes["nats"].start()
    try:
        async with (
            ledger_main.running(LedgerSettings.load(config("ledger"))),
            policy_main.running(PolicySettings.load(config("policy"))) as policy,
            broker_main.running(BrokerSettings.load(config("broker"))),
        ):
            directives = directive_folders(whole.layout.directives)
            await put_on_record(policy, *(handed_in(one, received_late=True) for one in directives))
            yield whole
    finally:
        whole.kill()


@pytest.mark.promise(9)
async def test_decisions_are_made_again_from_the_ledger_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder of directives is named: what was in force is what the ledger held."""
    proposal = tmp_path / "nothing-at-all"
    proposal.mkdir()
    (proposal / "directive.toml").write_text(manifest(name="nothing-at-all"))
    (proposal / "rules.cedar").write_text(FORBID.replace("LAPD-9", "LAPD-77") + ";")
    (proposal / "cases.yaml").write_text("cases: []\n")
    async with deciding(tmp_path / "data") as whole:

        async def said(*arguments: object) -> Said:
            capsys.readouterr()
            given = [*arguments, *GROUND, "--registry", whole.layout.registry, "--json"]
            given += ["--config", whole.layout.oversight_client]
            code = await asyncio.to_thread(exit_code, [str(one) for one in given])
            return Said(code, *capsys.readouterr())

        async with at_work(whole, LAPD) as lapd:
            decisions = []
            for facts in CASES:
                await lapd.submit(lapd.sealed(facts, probe()))
                decisions.append((await lapd.client.get(facts.search_id)).decision)
        for facts, decision in zip(CASES, decisions, strict=True):
            assert decision.HasField("documents_index")
            explained = await said("search", "explain", facts.search_id)
            assert (explained.code, explained.document["differences"]) == (0, [])
        replayed = await said("directive", "replay", proposal, "--sample", 1)
        assert (replayed.code, replayed.document["sound"]) == (0, True), replayed.err
        outcomes = {what: n for what, n in replayed.document["outcomes"].items() if n}
        assert outcomes == {"TO_REFUSED": 1, "OTHER_REASONS": 1}
        assert replayed.document["engine"]["changes_confirmed"] == 2
