"""What the documents come to is made anew only as far as they have changed."""

import pytest

from countersign.type.v1.decision_pb2 import DecisionOutcome
from directive.findings import DirectiveRefused
from directive.signature import Signers
from policy.documents import READER, Documents
from registry.orders import Order, OrderNotProved
from registry.publication import pending_entries
from registry.signature import Signed
from support import registrars
from support.directives import NOON, TRAINED, ordinary, vocabulary
from support.documents import NAME, handed_in, published
from support.registrations import (
    LAPD,
    LAPD_PUBLIC,
    LASD,
    LASD_PUBLIC,
    OFFICERS,
    admitting,
    document,
    kept_list,
    openings,
    signed,
    signer,
    system,
)


def follow(documents: Documents, ready: Signed) -> None:
    """Applies a registration as it would stand in the ledger."""
    assert documents.fold is not None
    for pending in pending_entries(ready, documents.fold.previous(ready.document.owner)):
        head = documents.holdings.head
        if head is not None:
            pending.entry.previous_document = head
        documents.follow(0 if head is None else head + 1, pending.entry, openings(pending))


def registered() -> Documents:
    documents = Documents(vocabulary(), None, admitting(LAPD, LASD))
    follow(documents, signed(document(LASD_PUBLIC), 1))
    follow(documents, signed(document(LAPD_PUBLIC, OFFICERS), 1))
    return documents


def test_an_officers_change_leaves_the_directives_as_they_were_made() -> None:
    documents = registered()
    before = documents.made()
    follow(documents, signed(document(LAPD_PUBLIC, OFFICERS.replace("true", "false")), 2))
    after = documents.made()
    assert after.book is before.book
    assert not after.registry.officers[TRAINED].active
    assert after.documents_index == documents.holdings.head
    told = [one.evaluator.evaluate(ordinary(), TRAINED, NOON) for one in (before, after)]
    assert told[0].policy_set_sha256 != told[1].policy_set_sha256


def test_what_an_agency_registers_besides_counts_too() -> None:
    documents = registered()
    documents.made()
    follow(documents, signed(document(LASD_PUBLIC + system("other")), 2))
    decision = documents.made().evaluator.evaluate(ordinary(system="other"), TRAINED, NOON)
    assert all("UNKNOWN_SYSTEM" not in verdict.faults for verdict in decision.verdicts)


def test_a_key_that_an_owner_has_taken_out_is_not_replaced_by_one_of_the_trust_roots() -> None:
    roots, own = Signers.parse({LAPD: (signer(LAPD, 2).vkey,)}), signer(LAPD, 3).vkey
    documents = Documents(vocabulary(), roots, admitting(LAPD, LASD))

    def keys() -> list[str]:
        signers = documents.world.signers
        assert signers is not None
        return [key.vkey for key in signers.by_party[LAPD]]

    assert keys() == [signer(LAPD, 2).vkey]
    bare = LAPD_PUBLIC.replace('["lapd-fr-users"]', "[]")
    follow(documents, signed(document(bare), 1))
    assert keys() == [signer(LAPD, 2).vkey]
    with_key = bare.replace("[keys]\n", f'[keys]\ndirectives = ["{own}"]\n')
    follow(documents, signed(document(with_key), 2))
    assert keys() == [own]
    follow(documents, signed(document(bare), 3))
    assert keys() == []


def test_what_is_tried_on_is_not_kept() -> None:
    documents = registered()
    before = documents.made()
    tried = documents.copy()
    follow(tried, signed(document(LAPD_PUBLIC), 2))
    assert not tried.made().registry.officers
    assert documents.made().registry.officers == before.registry.officers


@pytest.mark.promise(9)
def test_whose_standing_was_expunged_does_not_keep_directives_from_being_followed() -> None:
    """The one officer who held the course that a directive names is forgotten: the directive still binds."""
    first = registered()
    entry = published(handed_in(), first.holdings)
    first.follow(5, entry, {})
    assert NAME in first.holdings.held
    again = Documents(vocabulary(), None, admitting(LAPD, LASD))
    for ready in (signed(document(LASD_PUBLIC), 1), signed(document(LAPD_PUBLIC, OFFICERS), 1)):
        for pending in pending_entries(ready, None):
            head = again.holdings.head
            if head is not None:
                pending.entry.previous_document = head
            again.follow(0 if head is None else head + 1, pending.entry, {})
    assert not again.registry.officers
    again.follow(5, published(handed_in(), again.holdings), {})
    assert NAME in again.holdings.held
    decision = again.made().evaluator.evaluate(ordinary(), TRAINED, NOON)
    assert decision.outcome == DecisionOutcome.DECISION_OUTCOME_REFUSED


def test_what_is_handed_in_may_name_only_what_there_is() -> None:
    documents = registered()
    follow(documents, signed(document(LAPD_PUBLIC, ""), 2))
    with pytest.raises(DirectiveRefused, match="LACRIS-FR"):
        documents.apply(9, published(handed_in(), documents.holdings), {})


def test_a_registration_that_does_not_count_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    documents = registered()
    before, head = documents.registry, documents.holdings.head
    follow(documents, signed(document(LASD_PUBLIC + kept_list("lapd-fr-users")), 2))
    assert documents.holdings.head != head
    assert documents.registry == before
    assert "NAME_TAKEN" in logged(caplog)


def test_an_officer_whom_another_agency_claims_is_unknown_and_not_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    documents = registered()
    stolen = OFFICERS.replace('["lapd-fr-users"]', "[]")
    follow(documents, signed(document(LASD_PUBLIC, stolen), 2))
    assert TRAINED not in documents.registry.officers
    assert "'officers': 2" in logged(caplog)
    assert TRAINED not in logged(caplog)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return str([record.fields for record in caplog.records])  # type: ignore[attr-defined]


@pytest.mark.promise(3)
def test_nobody_signs_directives_for_who_was_given_new_keys_and_has_not_published() -> None:
    """Whoever has the old keys could publish or withdraw one meanwhile."""
    roots, own = Signers.parse({LAPD: (signer(LAPD, 2).vkey,)}), signer(LAPD, 3).vkey
    documents = Documents(vocabulary(), roots, registrars.admitting(LAPD, LASD))

    def keys() -> list[str]:
        signers = documents.world.signers
        assert signers is not None
        return [key.vkey for key in signers.by_party[LAPD]]

    def ordered(said: Order) -> None:
        head = documents.holdings.head
        entry = registrars.on_record(said)
        if head is not None:
            entry.previous_document = head
        documents.follow(0 if head is None else head + 1, entry, {})

    assert keys() == [signer(LAPD, 2).vkey]
    new = signer(LAPD, 4)
    ordered(registrars.order(LAPD, "recover", new.vkey))
    assert keys() == []
    bare = LAPD_PUBLIC.replace(signer(LAPD).vkey, new.vkey)
    with_key = bare.replace("[keys]\n", f'[keys]\ndirectives = ["{own}"]\n')
    follow(documents, signed(document(with_key), 1, new))
    assert keys() == [own]


@pytest.mark.promise(3)
def test_an_order_without_a_quorum_that_is_known_here_ends_who_follows() -> None:
    documents = Documents(vocabulary(), None, registrars.admitting(LAPD, registrars=()))
    with pytest.raises(OrderNotProved):
        documents.follow(0, registrars.on_record(registrars.order(LAPD)), {})
    assert documents.holdings.head is None
    assert OrderNotProved in READER.refusals
