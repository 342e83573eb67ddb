"""What owners publish becomes the registry: whole, signed by its owner, or not at all."""

import hashlib
from datetime import date

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.entry import holder_of
from registry import skeleton
from registry.findings import RegistryRefused
from registry.publication import pending_entries
from shared.registry import Registry
from support.ledgers import PUBLISHER
from support.registrations import (
    BURBANK,
    CALIFORNIA,
    LAPD,
    LAPD_PUBLIC,
    LASD,
    LASD_PUBLIC,
    OFFICERS,
    admitting,
    agency,
    document,
    follow,
    gallery,
    kept_list,
    los_angeles,
    openings,
    publish,
    published,
    refusal,
    signed,
    signer,
    state,
    system,
)

# SHA-256 of two entries of version 1, and of one of version 2.
PUBLIC_ENTRY = "806939b2e46c406891583ba620b67a53ccbe3ff85ca19e06374a8b0e03ee4255"
BOUND_ENTRY = "1e5b3f7c5b01263ec5819fcb3e7ded7ac5e85d6be8468454e8aa465d544d6af5"
OFFICERS_ENTRY = "bb8a79b0e452b32d599bf8e8f584f7b55224b605b7868537a0ed4067e526a788"


def test_owners_make_a_registry_together() -> None:
    registry = los_angeles().registry
    assert set(registry.agencies) == {LAPD, LASD}
    assert registry.systems["lacris"].operator == LASD
    assert registry.galleries["lacris-booking"].owner == LASD
    assert registry.lists["lapd-fr-users"].owner == LAPD
    officer = registry.officers["lapd-40123"]
    assert (officer.agency, officer.active, officer.lists) == (LAPD, True, ("lapd-fr-users",))
    assert registry.days == {date(2099, 1, 1)}


def test_an_officer_who_leaves_is_one_small_entry_and_acts_at_once() -> None:
    fold = los_angeles()
    leaves = OFFICERS.replace("active = true\nlists", "active = false\nlists")
    ready = signed(document(LAPD_PUBLIC, leaves), 2)
    (pending,) = published(fold, ready)
    assert pending.entry.ByteSize() < 450
    applied = publish(fold, ready)
    assert (applied.public_changed, applied.officers_changed) == (False, 1)
    assert not fold.registry.officers["lapd-40123"].active


def test_an_officer_who_is_removed_is_unknown() -> None:
    fold = los_angeles()
    publish(fold, signed(document(LAPD_PUBLIC, "[officers.lapd-50999]\nactive = true\n"), 2))
    assert set(fold.registry.officers) == {"lapd-50999"}


def test_a_registry_that_was_given_out_stays_as_it_was() -> None:
    fold = los_angeles()
    before = fold.registry
    publish(fold, signed(document(LAPD_PUBLIC), 2))
    publish(fold, signed(document(LASD_PUBLIC + system("other")), 2))
    assert set(before.officers) == {"lapd-40123", "lapd-50999"}
    assert set(before.systems) == {"lacris"}
    assert not fold.registry.officers


def test_what_did_not_change_is_the_same_table() -> None:
    """Whoever keeps something by it can tell that officers only have changed."""
    fold = los_angeles()
    before = fold.registry
    publish(fold, signed(document(LAPD_PUBLIC), 2))
    assert fold.registry.agencies is before.agencies
    assert fold.registry.officers is not before.officers


def test_the_digest_is_over_what_each_owner_signed_last() -> None:
    """Worked out from the public entries alone, as an outsider would."""
    fold, digests = los_angeles(), {}
    for ready in (
        signed(document(LASD_PUBLIC), 1),
        signed(document(LAPD_PUBLIC, OFFICERS), 1),
    ):
        said = pending_entries(ready, None)[0].entry.registry_published.statement
        text = (
            f"countersign/registry-signature/v2\nlog {said.log_origin}\n"
            f"owner {said.owner}\nserial {said.serial}\n"
            f"agency.toml sha256:{said.document_sha256.hex()}\n"
            f"officers {said.officers} sha256:{said.officers_sha256.hex()}\n"
        )
        digests[said.owner] = hashlib.sha256(text.encode()).digest()
    whole = b"".join(digests[owner] for owner in sorted(digests))
    expected = hashlib.sha256(b"countersign/registry/v1\0" + whole).digest()
    assert fold.sha256 == fold.registry.sha256 == expected


def test_an_officers_change_changes_the_digest() -> None:
    fold = los_angeles()
    before = fold.registry.sha256
    publish(fold, signed(document(LAPD_PUBLIC, OFFICERS.replace("2099", "2098")), 2))
    assert fold.registry.sha256 != before


@pytest.mark.promise(5)
def test_no_public_entry_says_who_the_officers_are() -> None:
    ready = signed(document(LAPD_PUBLIC, OFFICERS), 1)
    for pending in pending_entries(ready, None):
        public = Entry.FromString(PUBLISHER.complete(pending, "entry").leaf)
        for word in (b"40123", b"50999", b"2099", b"LACRIS-FR"):
            assert word not in public.SerializeToString()
        if public.HasField("officers_published"):
            assert holder_of(public) == LAPD


def test_many_officers_are_several_entries_that_count_all_at_once() -> None:
    many = "".join(f"[officers.o-{number}]\nactive = true\n" for number in range(1500))
    fold = los_angeles()
    ready = signed(document(LAPD_PUBLIC, many), 2)
    entries = published(fold, ready)
    assert len(entries) == 94
    for pending in entries[:-1]:
        assert fold.apply(pending.entry, openings(pending)) is None
        assert len(fold.registry.officers) == 2
        assert PUBLISHER.complete(pending, "entry")
    assert fold.apply(entries[-1].entry, openings(entries[-1]))
    assert len(fold.registry.officers) == 1500


def test_a_long_public_part_is_several_entries() -> None:
    fold = los_angeles()
    public = LASD_PUBLIC + "# a remark\n" * 20_000
    assert len(published(fold, signed(document(public), 2))) == 4
    assert publish(fold, signed(document(public), 2)).public_changed
    with pytest.raises(RegistryRefused, match="FILE_TOO_LARGE"):
        document(public + "# a remark\n" * 80_000)


def test_a_serial_number_that_is_past_is_refused() -> None:
    fold = los_angeles()
    for serial in (2, 3):
        publish(fold, signed(document(LAPD_PUBLIC), serial))
    assert "3 is published [SERIAL_OLD]" in refusal(
        fold, signed(document(LAPD_PUBLIC, OFFICERS), 2)
    )
    with pytest.raises(RegistryRefused, match="SERIAL_OLD"):
        pending_entries(signed(document(LAPD_PUBLIC), 3), fold.previous(LAPD))


def test_an_entry_that_comes_again_changes_nothing() -> None:
    """The bus may deliver twice: an officer's old standing must not come back."""
    fold = los_angeles()
    ready = signed(document(LAPD_PUBLIC, OFFICERS.replace("2099", "2098")), 2)
    (pending,) = published(fold, ready)
    assert fold.apply(pending.entry, openings(pending))
    before = state(fold)
    with pytest.raises(RegistryRefused, match="SERIAL_OLD"):
        fold.apply(pending.entry, openings(pending))
    assert state(fold) == before


def test_an_owner_that_nobody_admitted_is_refused() -> None:
    stranger = "NV0020100"
    assert "no key that" in refusal(los_angeles(), signed(document(agency(stranger)), 1))


def test_a_document_with_another_partys_signature_is_refused() -> None:
    ready = signed(document(LAPD_PUBLIC), 2, by=signer(LASD))
    assert "[SIGNATURE_OTHER_PARTY]" in refusal(los_angeles(), ready)


def test_the_owners_document_says_who_signs_the_next() -> None:
    fold, key = los_angeles(), signer(LAPD, 2)
    public = agency(LAPD, kept_list("lapd-fr-users"), keys=[key.vkey])
    publish(fold, signed(document(public, OFFICERS), 2))
    assert "[SIGNATURE_OTHER_PARTY]" in refusal(fold, signed(document(public), 3))
    publish(fold, signed(document(public), 3, by=key))


@pytest.mark.parametrize(
    ("public", "officers", "found"),
    [
        (
            LAPD_PUBLIC + system("lacris"),
            OFFICERS,
            f"systems.lacris: belongs to {LASD} [NAME_TAKEN]",
        ),
        (LAPD_PUBLIC + gallery("own", "absent"), OFFICERS, "galleries.own: nobody operates"),
        (agency(LAPD), OFFICERS, "lists.lapd-fr-users: has officers of its keeper [LIST_IN_USE]"),
        (
            LAPD_PUBLIC.replace("US-CA", "US-NV"),
            OFFICERS,
            "agency.jurisdiction: was US-CA: an agency does not leave",
        ),
        (
            LAPD_PUBLIC,
            "[officers.new]\nactive = true\nlists = ['absent']\n",
            f"{LAPD}/officers.toml: officers.new: nobody keeps the list 'absent' [LIST_UNKNOWN]",
        ),
    ],
)
def test_what_is_not_there_or_anothers_is_refused(public: str, officers: str, found: str) -> None:
    assert found in refusal(los_angeles(), signed(document(public, officers), 2))


def test_a_list_that_goes_while_officers_stay_on_it_is_refused() -> None:
    """Also when they are not published anew, so that nothing else would look at them."""
    fold = los_angeles()
    with_another = LAPD_PUBLIC + kept_list("another")
    publish(fold, signed(document(with_another, OFFICERS), 2))
    gone = agency(LAPD, kept_list("another"))
    assert "lists.lapd-fr-users: has officers of its keeper" in refusal(
        fold, signed(document(gone, OFFICERS), 3)
    )
    publish(fold, signed(document(gone, OFFICERS.replace("lapd-fr-users", "another")), 3))


def test_an_agency_enters_its_officers_on_a_list_of_another_that_lets_it() -> None:
    fold = los_angeles()
    onto = "[officers.b-1]\nactive = true\nlists = ['lacris-users']\n"
    ready = signed(document(agency(BURBANK), onto), 1)
    publish(fold, signed(document(LASD_PUBLIC + kept_list("lacris-users", LAPD)), 2))
    assert f"and does not let {BURBANK} enter officers [LIST_OF_OTHERS]" in refusal(fold, ready)
    publish(fold, signed(document(LASD_PUBLIC + kept_list("lacris-users", BURBANK)), 3))
    publish(fold, ready)
    assert fold.registry.officers["b-1"].lists == ("lacris-users",)
    for public in (LASD_PUBLIC, LASD_PUBLIC + kept_list("lacris-users", LAPD)):
        found = refusal(fold, signed(document(public), 4))
        assert f"has officers of {BURBANK}, who must be taken off first [LIST_IN_USE]" in found


def test_a_system_that_holds_galleries_of_others_does_not_go() -> None:
    fold = los_angeles()
    publish(fold, signed(document(LAPD_PUBLIC + gallery("own", "lacris"), OFFICERS), 2))
    assert f"systems.lacris: still holds galleries of {LAPD} [SYSTEM_IN_USE]" in refusal(
        fold, signed(document(agency(LASD)), 2)
    )
    publish(fold, signed(document(LAPD_PUBLIC, OFFICERS), 3))
    publish(fold, signed(document(agency(LASD)), 2))
    assert not fold.registry.systems


def test_an_officer_of_another_agency_is_not_entered() -> None:
    taken = "[officers.lapd-40123]\nactive = true\n"
    assert "is an officer of another agency [NAME_TAKEN]" in refusal(
        los_angeles(), signed(document(agency(BURBANK), taken), 1)
    )


def test_a_jurisdiction_takes_part() -> None:
    fold = los_angeles()
    offences = '\n[offence_sets.violent]\ntitle = "Violent"\nnibrs = ["09A"]\n'
    overseer = '\n[oversight.inspector]\nname = "Inspector"\njurisdictions = ["US-CA"]\n'
    publish(fold, signed(document(agency(CALIFORNIA, offences + overseer)), 1))
    assert fold.registry.offence_sets["violent"].owner == CALIFORNIA
    assert set(fold.registry.oversight) == {"inspector"}


def test_a_union_says_who_its_members_are_and_binds_them_from_then_on() -> None:
    fold = admitting("EU")
    union = f'owner = "EU"\nmembers = ["DE"]\n[keys]\nregistry = ["{signer("EU").vkey}"]\n'
    publish(fold, signed(document(union), 1))
    assert fold.registry.above("DE-BE") == {"DE", "EU"}
    assert fold.registry.above("US-CA") == {"US"}
    publish(fold, signed(document(union.replace('"DE"', '"DE", "FR"')), 2))
    assert fold.registry.above("FR") == {"EU"}
    publish(fold, signed(document(union.replace('members = ["DE"]\n', "")), 3))
    assert fold.registry.above("DE") == frozenset()


def test_a_unions_members_are_taken_over_from_a_file() -> None:
    known = Registry(agencies={}, unions={"EU": ("DE", "FR"), "AU": ("KE",)})
    files = skeleton.files("EU", signer("EU").vkey, known, date(2026, 11, 1))
    assert document(files["agency.toml"]).public.members == ("DE", "FR")


def test_the_same_again_is_signed_under_a_new_number() -> None:
    fold = los_angeles()
    applied = publish(fold, signed(document(LAPD_PUBLIC, OFFICERS), 2))
    assert (applied.serial, applied.officers_changed) == (2, 0)


def test_an_officer_whose_opening_was_destroyed_is_unknown_and_the_others_are_not() -> None:
    fold = los_angeles()
    more = OFFICERS + "[officers.lapd-1]\nactive = true\n[officers.lapd-2]\nactive = true\n"
    (pending,) = published(fold, signed(document(LAPD_PUBLIC, more), 2))
    other = pending.sensitive[1]
    applied = fold.apply(pending.entry, {other.field: other.value})
    assert applied is not None
    assert applied.unopened == 1
    assert len(fold.registry.officers) == 3
    publish(fold, signed(document(LAPD_PUBLIC, OFFICERS), 3))
    assert set(fold.registry.officers) == {"lapd-40123", "lapd-50999"}


def test_a_publication_that_was_broken_off_is_replaced_by_the_next() -> None:
    fold = los_angeles()
    public = LASD_PUBLIC + "# a remark\n" * 20_000
    first = published(fold, signed(document(public), 2))
    for pending in first[:2]:
        fold.apply(pending.entry, {})
    publish(fold, signed(document(LASD_PUBLIC + system("other")), 3))
    before = state(fold)
    for pending in first[2:]:
        with pytest.raises(RegistryRefused, match="does not follow"):
            fold.apply(pending.entry, {})
    assert state(fold) == before


def test_keys_of_entries_name_publication_and_part() -> None:
    """Appended again after a crash, they are on record once; what is signed anew is something else."""
    entries = pending_entries(signed(document(LAPD_PUBLIC, OFFICERS), 2), None)
    again = pending_entries(signed(document(LAPD_PUBLIC, OFFICERS), 2), None)
    other = pending_entries(signed(document(LAPD_PUBLIC), 2), None)
    keys = [pending.idempotency_key for pending in entries]
    assert keys == [pending.idempotency_key for pending in again]
    assert len({*keys, *(pending.idempotency_key for pending in other)}) == len(keys) + len(other)


def test_entries_of_other_kinds_are_passed_over() -> None:
    entry = Entry()
    entry.heartbeat.SetInParent()
    assert los_angeles().apply(entry, {}) is None


@pytest.mark.promise(3)
def test_what_was_signed_for_another_installation_counts_nowhere_else() -> None:
    """A text that an owner signed for trying things out, handed in where searches are in earnest."""
    fold = los_angeles()
    staged = signed(document(agency(BURBANK)), 1, log="staging.example/countersign")
    assert "was signed for staging.example/countersign" in refusal(fold, staged)
    with pytest.raises(RegistryRefused, match="SIGNED_FOR_OTHER_LOG"):
        follow(fold, staged)
    assert fold.published(BURBANK) is None


def test_what_was_signed_for_no_log_stays_on_record_and_nothing_more_is_put_there() -> None:
    fold = los_angeles()
    unbound = signed(document(agency(BURBANK)), 1, log="")
    assert "was signed for no log in particular" in refusal(fold, unbound)
    follow(fold, unbound)
    assert fold.published(BURBANK)


def test_the_bytes_of_published_entries_stay_what_they_are() -> None:
    public, officers = (
        pending.entry
        for pending in pending_entries(signed(document(LAPD_PUBLIC, OFFICERS), 1, log=""), None)
    )
    bound = pending_entries(signed(document(LAPD_PUBLIC, OFFICERS), 1), None)[1].entry
    for entry, expected in (
        (public, PUBLIC_ENTRY),
        (officers, OFFICERS_ENTRY),
        (bound, BOUND_ENTRY),
    ):
        raw = entry.SerializeToString(deterministic=True)
        assert hashlib.sha256(raw).hexdigest() == expected
