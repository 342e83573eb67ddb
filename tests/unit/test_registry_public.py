"""What can be worked out of registrations without an opening, and that nothing is left out of it."""

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from directive.holdings import Holdings
from registry.findings import RegistryRefused
from registry.public import PublicDocuments, PublicRegistry
from registry.publication import pending_entries
from registry.signature import Signed
from shared.registry import IdentityProvider, TrustRoots
from shared.signing import SigningKey
from support.documents import handed_in, published
from support.following_brokers import ISSUER, development_provider, provider_in_toml
from support.ledgers import ORIGIN
from support.registrars import REGISTRARS, THREE, on_record, order
from support.registrations import (
    LAPD,
    LAPD_PUBLIC,
    LASD,
    LASD_PUBLIC,
    OFFICERS,
    demonstration,
    document,
    los_angeles,
    signed,
    signer,
    system,
)

KEY = SigningKey.generate()
OLD = IdentityProvider(issuer="https://id.old.test", jwks={"keys": []})
BARE = LAPD_PUBLIC
VOUCHED = LAPD_PUBLIC.replace("[keys]\n", f"[keys]\n{provider_in_toml(development_provider(KEY))}")


class Follower:
    """Documents in their places in the ledger, to be followed."""

    def __init__(self, **providers: IdentityProvider) -> None:
        trust = TrustRoots(
            log_verifier_keys=("not used here",),
            broker_verify_keys=(bytes(32),),
            identity_providers=providers,
            registry_signers={owner: (signer(owner).vkey,) for owner in demonstration()},
            registrars=(REGISTRARS,),
        )
        self.documents = PublicDocuments(trust, ORIGIN)

    def told(self, entry: Entry, openings: dict[str, str] | None = None) -> None:
        head = self.documents.head
        entry.ClearField("previous_document")
        if head is not None:
            entry.previous_document = head
        self.documents.follow(0 if head is None else head + 1, entry, openings or {})

    def registers(self, said: Signed) -> PublicRegistry:
        for pending in pending_entries(said, None):
            self.told(pending.entry, {one.field: one.value for one in pending.sensitive})
        return self.documents.made()


def test_all_but_the_officers_is_known_as_to_who_is_shown_the_openings() -> None:
    follower = Follower()
    follower.registers(signed(document(LASD_PUBLIC), 1))
    made = follower.registers(signed(document(LAPD_PUBLIC, OFFICERS), 1))
    known = los_angeles()
    assert made.registry.officers == {}
    for section in ("agencies", "systems", "galleries", "lists", "oversight", "offence_sets"):
        assert getattr(made.registry, section) == getattr(known.registry, section)
    assert made.registry.sha256 == known.sha256
    assert made.head == follower.documents.head == 2


def test_a_provider_of_the_trust_roots_counts_until_the_agency_registers_one_and_never_again() -> (
    None
):
    follower = Follower(**{LAPD: OLD})
    assert follower.documents.made().providers == {LAPD: OLD}
    assert follower.registers(signed(document(BARE), 1)).providers == {LAPD: OLD}
    registered = follower.registers(signed(document(VOUCHED), 2)).providers
    assert registered[LAPD].issuer == ISSUER
    assert follower.registers(signed(document(BARE), 3)).providers == {}


def test_a_registration_that_does_not_count_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    follower = Follower()
    before = follower.registers(signed(document(LASD_PUBLIC), 1))
    after = follower.registers(
        signed(document(LASD_PUBLIC + system("another")), 2, by=signer(LAPD))
    )
    assert after.registry.systems == before.registry.systems
    assert after.head == 1
    assert "does not count" in caplog.text


@pytest.mark.promise(3)
@pytest.mark.promise(7)
def test_nobody_vouches_for_officers_of_who_is_expelled() -> None:
    """Neither by its own registration nor by the trust roots, from which it began."""
    follower = Follower(**{LASD: OLD})
    for owner, public in ((LASD, LASD_PUBLIC), (LAPD, VOUCHED)):
        follower.registers(signed(document(public), 1))
        follower.told(on_record(order(owner)))
    made = follower.documents.made()
    assert not made.providers
    assert made.registry.expelled == {LAPD, LASD}


@pytest.mark.promise(3)
def test_an_order_of_registrars_who_are_not_known_here_is_not_passed_over() -> None:
    """Others may know them: who goes on would take an expelled owner's word."""
    follower = Follower()
    follower.registers(signed(document(LASD_PUBLIC), 1))
    with pytest.raises(RegistryRefused, match="QUORUM"):
        follower.told(on_record(order(LASD), THREE[:1]))
    assert follower.documents.head == 0


def test_an_order_that_counts_nowhere_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    follower = Follower()
    follower.registers(signed(document(LASD_PUBLIC), 1))
    follower.told(on_record(order(LASD, log="other.example/log")))
    assert follower.documents.head == 1
    assert not follower.documents.made().registry.expelled
    assert "SIGNED_FOR_OTHER_LOG" in str(caplog.records[-1].__dict__)


def test_directives_are_passed_over() -> None:
    follower = Follower()
    follower.told(published(handed_in(), Holdings()))
    assert follower.documents.head == 0


def test_a_document_that_is_left_out_is_noticed() -> None:
    follower = Follower()
    follower.registers(signed(document(LASD_PUBLIC), 1))
    (pending, *_) = pending_entries(signed(document(LAPD_PUBLIC), 1), None)
    pending.entry.previous_document = 5
    with pytest.raises(RegistryRefused, match="CHAIN_BROKEN"):
        follower.documents.follow(9, pending.entry, {})


def test_a_document_of_a_later_release_is_not_passed_over() -> None:
    """It may be one that takes somebody out."""
    follower = Follower()
    later = Entry.FromString(b"\xa2\x06\x00")  # field 100
    with pytest.raises(RegistryRefused, match="DOCUMENT_UNKNOWN"):
        follower.told(later)
    heartbeat = Entry()
    heartbeat.heartbeat.SetInParent()
    with pytest.raises(RegistryRefused, match="DOCUMENT_UNKNOWN"):
        follower.told(heartbeat)
    assert follower.documents.head is None
    assert LASD not in follower.documents.made().registry.agencies
