"""`search explain` and `directive replay` over a complete installation whose directives the ledger holds."""

import asyncio
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from support.agencies import at_work
from support.brokers import own_case
from support.directives import FORBID, manifest
from support.disclosures import AUTHORITY, REASON
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.pictures import probe
from support.terminals import Said

GROUND = ("--authority", AUTHORITY, "--reason", REASON)
CASES = (own_case(), own_case(beneficiary_agency=BURBANK))
"""One that is permitted, and one that is refused."""


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
    with InstallationUnderTest(tmp_path / "data", on_record=True) as whole:

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
