"""Trust roots that say two things of one name stop the start: it could be asked at the wrong place."""

import pytest

from shared.referral import check_peers
from shared.registry import RegistryError
from support.referrals import ReferralWorkshop


@pytest.fixture
def workshop() -> ReferralWorkshop:
    return ReferralWorkshop()


def test_name_that_two_peers_claim_stops_the_start(workshop: ReferralWorkshop) -> None:
    check_peers(workshop.trust)
    third = workshop.east_as_peer.model_copy(update={"trust_domain": "north.test"})
    trust = workshop.trust.model_copy(update={"peers": (workshop.east_as_peer, third)})
    with pytest.raises(RegistryError, match="lacris"):
        check_peers(trust)


def test_system_that_is_here_and_at_a_peer_stops_the_start(workshop: ReferralWorkshop) -> None:
    trust = workshop.trust.model_copy(update={"systems": workshop.east_as_peer.systems})
    with pytest.raises(RegistryError, match="lacris"):
        check_peers(trust)


def test_peers_key_that_is_none_stops_the_start(workshop: ReferralWorkshop) -> None:
    bad = workshop.east_as_peer.model_copy(update={"log_verifier_keys": ("no key",)})
    with pytest.raises(RegistryError, match="verifier key"):
        check_peers(workshop.trust.model_copy(update={"peers": (bad,)}))
