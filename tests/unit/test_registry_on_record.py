"""On record though it should not be: it counts as public bytes say, and who is in doubt is unknown."""

from pathlib import Path

import pytest

from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.review import review
from support.registrations import (
    BURBANK,
    LAPD,
    LAPD_PUBLIC,
    LASD_PUBLIC,
    OFFICERS,
    agency,
    document,
    follow,
    forged,
    kept_list,
    los_angeles,
    openings,
    publish,
    published,
    refusal,
    signed,
    system,
    write,
)

pytestmark = pytest.mark.promise(3)

OURS, OTHER = "lapd-40123", "lapd-50999"
THEIRS = f"[officers.{OURS}]\nactive = true\n"


def known(fold: Fold) -> set[str]:
    return set(fold.registry.officers)


def test_an_officer_whom_two_agencies_claim_is_nobodys() -> None:
    fold = los_angeles()
    follow(fold, signed(document(agency(BURBANK), THEIRS), 1))
    assert fold.published(BURBANK)
    assert known(fold) == {OTHER}
    follow(fold, signed(document(agency(BURBANK)), 2))
    assert known(fold) == {OURS, OTHER}
    assert fold.registry.officers[OURS].agency == LAPD


@pytest.mark.promise(9)
def test_what_counts_does_not_change_when_an_opening_is_destroyed() -> None:
    """Or a restart would leave the others with what was refused before, and with what builds upon it."""
    live, restarted = los_angeles(), los_angeles()
    for serial, public in enumerate((agency(BURBANK), agency(BURBANK, system("burbank"))), 1):
        for pending in published(live, signed(document(public, THEIRS), serial)):
            live.follow(pending.entry, openings(pending))
            restarted.follow(pending.entry, {})
    assert live.sha256 == restarted.sha256
    assert set(live.registry.systems) == set(restarted.registry.systems) == {"burbank", "lacris"}


UNUSABLE = agency(BURBANK).replace(
    "[keys]\n",
    '[keys]\nidentity_provider = { issuer = "https://id.test", jwks = { keys = [{ kty = "OKP" }] } }\n',
)


def test_a_provider_that_can_vouch_for_nobody_is_not_put_on_record_and_counts_once_it_is() -> None:
    fold = los_angeles()
    assert "PROVIDER_UNUSABLE" in refusal(fold, signed(document(UNUSABLE), 1))
    follow(fold, signed(document(UNUSABLE), 1))
    assert fold.published(BURBANK)


def test_a_provider_that_can_vouch_for_nobody_is_named_before_it_is_signed(tmp_path: Path) -> None:
    folder = write(tmp_path / "burbank", UNUSABLE)
    (reviewed,) = review([folder])
    assert [one.guard for one in reviewed.findings] == ["PROVIDER_UNUSABLE"]


def test_an_officer_on_a_list_that_went_is_unknown_until_it_is_back() -> None:
    """Without the list, a prohibition of those on it would not apply."""
    fold = los_angeles()
    follow(fold, signed(document(agency(LAPD), OFFICERS), 2))
    assert known(fold) == {OTHER}
    follow(fold, signed(document(LAPD_PUBLIC, OFFICERS), 3))
    assert known(fold) == {OURS, OTHER}


def test_an_officer_whom_the_keeper_of_a_list_lets_nobody_enter_any_more_is_unknown() -> None:
    fold = los_angeles()
    publish(fold, signed(document(LASD_PUBLIC + kept_list("lacris-users", BURBANK)), 2))
    onto = "[officers.b-1]\nactive = true\nlists = ['lacris-users']\n"
    publish(fold, signed(document(agency(BURBANK), onto), 1))
    follow(fold, signed(document(LASD_PUBLIC + kept_list("lacris-users")), 3))
    assert known(fold) == {OURS, OTHER}
    follow(fold, signed(document(LASD_PUBLIC + kept_list("lacris-users", BURBANK)), 4))
    assert known(fold) == {OURS, OTHER, "b-1"}


def test_who_copies_a_commitment_does_not_remove_the_officer_behind_it() -> None:
    """Commitments are public: another agency can sign for one, and sign it away again."""
    fold = los_angeles()
    copied = signed(document(LAPD_PUBLIC, OFFICERS), 1).officers
    follow(fold, forged(BURBANK, document(agency(BURBANK)), copied, 1))
    assert known(fold) == {OURS, OTHER}
    follow(fold, signed(document(agency(BURBANK)), 2))
    assert known(fold) == {OURS, OTHER}


def test_what_public_bytes_refuse_is_refused_on_record_too() -> None:
    fold = los_angeles()
    before = fold.sha256
    with pytest.raises(RegistryRefused, match="NAME_TAKEN"):
        follow(fold, signed(document(LAPD_PUBLIC + system("lacris"), OFFICERS), 2))
    assert fold.sha256 == before
