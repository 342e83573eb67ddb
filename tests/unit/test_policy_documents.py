"""What the documents come to is made anew only as far as they have changed."""

from policy.documents import Documents
from registry.publication import pending_entries
from registry.signature import Signed
from support.directives import NOON, TRAINED, ordinary, vocabulary
from support.registrations import (
    LAPD,
    LAPD_PUBLIC,
    LASD,
    LASD_PUBLIC,
    OFFICERS,
    admitting,
    document,
    openings,
    signed,
    system,
)


def follow(documents: Documents, ready: Signed) -> None:
    """Applies a registration as it would stand in the ledger."""
    assert documents.fold is not None
    known = documents.fold.published(ready.document.owner)
    for pending in pending_entries(ready, known.previous if known else None):
        head = documents.holdings.head
        if head is not None:
            pending.entry.previous_document = head
        documents.apply(0 if head is None else head + 1, pending.entry, openings(pending))


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


def test_what_is_tried_on_is_not_kept() -> None:
    documents = registered()
    before = documents.made()
    tried = documents.copy()
    follow(tried, signed(document(LAPD_PUBLIC), 2))
    assert not tried.made().registry.officers
    assert documents.made().registry.officers == before.registry.officers
