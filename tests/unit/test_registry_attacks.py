"""A publisher that lies, and an owner that claims too much: refused by whoever follows."""

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry
from registry.commitments import commit
from registry.findings import RegistryRefused
from registry.folding import Fold
from shared.registry import Standing
from support.registrations import (
    BURBANK,
    LAPD,
    LAPD_PUBLIC,
    LASD,
    LASD_PUBLIC,
    OFFICERS,
    document,
    forged,
    los_angeles,
    openings,
    publish,
    published,
    refusal,
    signed,
    state,
    system,
)


def attacked(fold: Fold, pending: PendingEntry) -> str:
    before = state(fold)
    with pytest.raises(RegistryRefused) as refused:
        fold.apply(pending.entry, openings(pending))
    assert state(fold) == before
    return str(refused.value)


def test_an_officer_whom_the_agency_did_not_sign_for_is_not_slipped_in() -> None:
    fold = los_angeles()
    more = OFFICERS + "[officers.lapd-1]\nactive = true\n"
    (pending,) = published(fold, signed(document(LAPD_PUBLIC, more), 2))
    (insider,) = commit(bytes(32), LAPD, {"insider": Standing(active=True)})
    pending.entry.officers_published.added.append(insider.commitment)
    pending.sensitive.add(field="standing_b", value=insider.opening)
    assert "is not of these officers [SIGNATURE_OF_OTHER_BYTES]" in attacked(fold, pending)


def test_an_officer_who_left_is_not_kept_by_leaving_the_change_out() -> None:
    fold = los_angeles()
    (pending,) = published(fold, signed(document(LAPD_PUBLIC), 2))
    del pending.entry.officers_published.removed[0]
    assert "is not of these officers [SIGNATURE_OF_OTHER_BYTES]" in attacked(fold, pending)


def test_a_statement_whose_serial_number_was_raised_is_refused() -> None:
    """Or an old standing could be played back."""
    fold = los_angeles()
    (pending,) = published(fold, signed(document(LAPD_PUBLIC), 2))
    pending.entry.officers_published.statement.serial = 3
    assert "[SIGNATURE_FALSE]" in attacked(fold, pending)


def test_openings_are_given_to_no_agency_but_the_signer() -> None:
    """An entry's openings are disclosed to the agency that it names."""
    fold = los_angeles()
    (pending,) = published(fold, signed(document(LAPD_PUBLIC), 2))
    pending.entry.officers_published.origin_agency = BURBANK
    assert "is of another agency than its entry [STATEMENT]" in attacked(fold, pending)


def test_an_agency_does_not_sign_the_document_of_another() -> None:
    ready = forged(LAPD, document(LASD_PUBLIC + system("other")), (), 2)
    with pytest.raises(RegistryRefused, match=f"has the public part of {LASD}"):
        los_angeles().check(ready)


def test_an_agency_enters_no_officer_of_another() -> None:
    theirs = commit(bytes(32), BURBANK, {"new": Standing(active=True)})
    ready = forged(LAPD, document(LAPD_PUBLIC), theirs, 2)
    assert f"officers.new: is an officer of {BURBANK} [OPENING]" in refusal(los_angeles(), ready)


def test_an_officer_is_entered_once() -> None:
    """Of two standings, nobody could tell which counts."""
    active, left = (
        commit(bytes(32), LAPD, {"x": Standing(active=is_so)}) for is_so in (True, False)
    )
    ready = forged(LAPD, document(LAPD_PUBLIC), (*active, *left), 2)
    assert "officers.x: is entered twice [OFFICER_TWICE]" in refusal(los_angeles(), ready)
    fold = los_angeles()
    publish(fold, forged(LAPD, document(LAPD_PUBLIC), active, 2))
    ready = forged(LAPD, document(LAPD_PUBLIC), (*active, *left), 3)
    assert "officers.x: is entered twice [OFFICER_TWICE]" in refusal(fold, ready)
