"""The development identity provider, whose tokens the broker's own check accepts."""

from datetime import timedelta
from pathlib import Path

import pytest

from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.installation.keys import KeyFiles, ensure_keys, issuer_of, write_trust_roots
from countersign.installation.layout import Layout
from countersign.installation.prepare import ensure_documents
from shared.errors import NotAllowed, NotAuthentic
from shared.registry import Registry, TrustRoots
from shared.signing import SigningKey
from shared.tokens import OfficerTokens
from support.clocks import ClockThatStandsStill

LAPD, BURBANK = "CA0194200", "CA0191200"
SEARCH = "0b8f6f0e-7a44-4c55-9f5e-3a2f0a6c1d11"


class World:
    """Providers of two agencies and the broker's check, on one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = ClockThatStandsStill()
        registry: Registry = ensure_documents(Layout(folder))
        self._files = KeyFiles(folder / "keys")
        write_trust_roots(folder / "trust-roots.json", ensure_keys(self._files, registry))
        trust = TrustRoots.load(folder / "trust-roots.json")
        self.tokens = OfficerTokens(registry, trust, self.clock)

    def provider(self, ori: str) -> DevelopmentIdentityProvider:
        key = SigningKey.load(self._files.identity_provider(ori))
        return DevelopmentIdentityProvider(issuer_of(ori), key, self.clock)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_token_names_the_officer_to_the_broker(world: World) -> None:
    token = world.provider(LAPD).token("lapd-40123", SEARCH)
    assert world.tokens.verify(token, LAPD, SEARCH) == "lapd-40123"


def test_a_token_lasts_five_minutes(world: World) -> None:
    token = world.provider(LAPD).token("lapd-40123", SEARCH)
    world.clock.advance(minutes=6)
    with pytest.raises(NotAuthentic) as refused:
        world.tokens.verify(token, LAPD, SEARCH)
    assert refused.value.reason == "OFFICER_TOKEN_EXPIRED"


def test_a_token_that_lives_too_long_is_refused_even_while_it_lasts(world: World) -> None:
    token = world.provider(LAPD).token("lapd-40123", SEARCH, timedelta(hours=1))
    with pytest.raises(NotAuthentic):
        world.tokens.verify(token, LAPD, SEARCH)


def test_one_agencys_provider_cannot_vouch_for_anothers_search(world: World) -> None:
    token = world.provider(BURBANK).token("burbank-117", SEARCH)
    with pytest.raises(NotAuthentic):
        world.tokens.verify(token, LAPD, SEARCH)


def test_a_provider_cannot_vouch_for_another_agencys_officer(world: World) -> None:
    token = world.provider(LAPD).token("burbank-117", SEARCH)
    with pytest.raises(NotAllowed):
        world.tokens.verify(token, LAPD, SEARCH)
