"""Who takes part may change between admission and decision: what is recorded goes by the same documents."""

import asyncio

import pytest

from broker.participants import Known, Participants
from countersign.broker.v1.broker_pb2 import CheckSearchRequest
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from shared.errors import NotAuthentic, Unavailable
from shared.registry import IdentityProvider
from shared.signing import SigningKey
from shared.tokens import OfficerTokens
from support.brokers import LAPD, OFFICER, BrokerOnTheTable, own_case, registry


class Ledgers:
    """What a broker has heard of by now, and what it would hear if it asked."""

    def __init__(self, broker: BrokerOnTheTable) -> None:
        tokens = OfficerTokens(broker.registry, broker.trust, broker.clock)
        self._tokens = tokens
        self.heard = self.told = Participants(broker.registry, tokens, 3)
        broker.follows = Known(lambda: self.heard, self._catch_up)
        broker.restart()
        broker.bus.policy.documents = broker.bus.ledger.documents = 3

    async def _catch_up(self) -> Participants:
        self.heard = self.told
        return self.told

    def has(self, index: int, key: SigningKey | None = None) -> None:
        """A document, by which LAPD has another identity provider."""
        providers = {}
        if key is not None:
            registered = DevelopmentIdentityProvider("https://id.lapd.test", key).registration()
            providers[LAPD] = IdentityProvider.model_validate(registered)
        tokens = self._tokens.with_registered(registry(), providers)
        self.told = Participants(registry(), tokens, index)


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable()


@pytest.fixture(name="ledgers")
def _ledgers(broker: BrokerOnTheTable) -> Ledgers:
    return Ledgers(broker)


@pytest.mark.promise(3)
async def test_a_key_that_is_taken_out_while_the_decision_is_made_vouches_for_nobody(
    broker: BrokerOnTheTable, ledgers: Ledgers
) -> None:
    ledgers.has(4, SigningKey.generate())
    broker.bus.policy.documents = broker.bus.ledger.documents = 4
    with pytest.raises(NotAuthentic):
        await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    facts = own_case()
    token = broker.provider.token(OFFICER, facts.search_id)
    with pytest.raises(NotAuthentic):
        await broker.searching.check(
            broker.call(rpc="CheckSearch"), CheckSearchRequest(facts=facts, officer_token=token)
        )
    assert broker.bus.ledger.kinds() == ["request_rejected"] * 2
    assert not broker.bus.published


async def test_a_document_that_changes_nothing_for_the_officer_does_not_hold_up_the_search(
    broker: BrokerOnTheTable, ledgers: Ledgers
) -> None:
    ledgers.has(4, broker.provider_key)
    broker.bus.policy.documents = broker.bus.ledger.documents = 4
    search = await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert search.is_open
    assert ledgers.heard is ledgers.told


@pytest.mark.promise(3)
async def test_a_document_of_which_the_ledger_does_not_tell_decides_nothing(
    broker: BrokerOnTheTable, ledgers: Ledgers
) -> None:
    broker.bus.policy.documents = broker.bus.ledger.documents = 4
    with pytest.raises(Unavailable) as refused:
        await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert refused.value.reason == "REGISTRY_STALE"
    assert broker.bus.ledger.kinds() == ["search_undecided"]


async def test_an_agency_without_a_usable_provider_is_told_so(
    broker: BrokerOnTheTable, ledgers: Ledgers
) -> None:
    ledgers.has(3)
    ledgers.heard = ledgers.told
    with pytest.raises(NotAuthentic) as refused:
        await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert refused.value.reason == "IDENTITY_PROVIDER_UNKNOWN"


async def test_where_the_registry_is_a_file_no_document_is_waited_for() -> None:
    broker = BrokerOnTheTable()
    broker.bus.policy.documents = broker.bus.ledger.documents = 9
    async with asyncio.timeout(60):
        search = await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert search.is_open
