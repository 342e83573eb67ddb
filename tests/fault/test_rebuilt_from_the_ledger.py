"""Everything but the ledger's own file is lost, and what every search has come to is told as before."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client.prepare import PreparedSearch
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from directive.book import directive_folders
from support.agencies import DECIDED_AND_ANSWERED, AgencyAtWork, at_work
from support.brokers import own_case
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.pictures import probe

pytestmark = [pytest.mark.fault, pytest.mark.promise(9)]


async def _submitted(lapd: AgencyAtWork, facts: SearchFacts) -> PreparedSearch:
    prepared = lapd.sealed(facts, probe())
    await lapd.submit(prepared)
    return prepared


async def _told(
    lapd: AgencyAtWork, searches: list[PreparedSearch]
) -> AsyncIterator[tuple[object, ...]]:
    for prepared in searches:
        search = await lapd.client.get(prepared.search_id)
        yield (
            search.state,
            search.decision_receipt.index,
            search.decision_receipt.leaf,
            search.end_receipt.index,
            search.end_receipt.leaf,
        )


def lose_all_but_the_ledger(installation: InstallationUnderTest) -> None:
    """What a disk took with it: streams, what connectors keep, and all that lies beside the database."""
    layout = installation.layout
    shutil.rmtree(layout.streams)
    layout.streams.mkdir(mode=0o700)
    for state in layout.ledger.parent.parent.glob("connector-*"):
        shutil.rmtree(state)
        state.mkdir(mode=0o700)


async def test_searches_and_directives_are_told_as_before(tmp_path: Path) -> None:
    """Of directives too nothing is kept but the ledger, neither by the policy service nor in their folder.

    What stays is the connector's own copy of its agency's, which it takes from nobody.
    """
    with InstallationUnderTest(tmp_path / "data", on_record=True) as whole:
        async with at_work(whole, LAPD) as lapd:
            answered = await _submitted(lapd, own_case())
            await lapd.ended(answered)
            whole.processes["connector-lacris"].kill()
            refused = await _submitted(lapd, own_case(beneficiary_agency=BURBANK))
            withdrawn = await _submitted(lapd, own_case())
            await lapd.client.cancel(withdrawn.search_id)
            pending = await _submitted(lapd, own_case())
            searches = [answered, refused, withdrawn, pending]
            before = [one async for one in _told(lapd, searches)]
            listed = [one.search_id for one in (await lapd.client.list()).searches]
            decision_before = (await lapd.client.get(pending.search_id)).decision
        whole.kill()
        lose_all_but_the_ledger(whole)
        for folder in directive_folders(whole.layout.directives):
            if folder.name != "lasd-lacris-operator":
                shutil.rmtree(folder)
        whole.start()
        async with at_work(whole, LAPD) as lapd:
            assert [one async for one in _told(lapd, searches)] == before
            assert [one.search_id for one in (await lapd.client.list()).searches] == listed
            # The order went with the bus; the same submission sends it, under the same decision.
            await lapd.submit_until_taken(pending)
            search, opened = await lapd.ended(pending)
            assert search.state == pb.SEARCH_STATE_ANSWERED
            assert opened.candidates is not None
            assert await lapd.kinds(pending.search_id) == DECIDED_AND_ANSWERED
            decided_after = await _submitted(lapd, own_case())
            decision_after = (await lapd.client.get(decided_after.search_id)).decision
    assert decision_before.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
    assert decision_before.HasField("documents_index")
    for decision in (decision_before, decision_after):
        decision.ClearField("evaluated_at")
    assert decision_after == decision_before
