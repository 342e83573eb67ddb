"""However documents follow each other, what they say at last counts; what is damaged changes nothing."""

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from countersign.ledger.v1.entry_pb2 import Entry
from registry.document import Document
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.orders import Action, Order
from registry.sections import sections_of
from shared.registry import Registry
from support import registrars
from support.examples import examples
from support.registrations import (
    BURBANK,
    LAPD,
    LASD,
    OFFICERS,
    admitting,
    agency,
    document,
    gallery,
    kept_list,
    los_angeles,
    openings,
    publish,
    published,
    signed,
    signer,
    system,
)
from tlog.note import Signer

OWNERS = (LAPD, LASD, BURBANK)
SIGNERS = (*registrars.THREE, signer(LAPD), Signer.from_seed("stranger.example", bytes(32)))
NAMES = st.sampled_from(["one", "two", "three"])
DAYS = st.sampled_from(["2026-01-01", "2027-01-01", "2028-01-01"])


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Any owner's, with names of which some are another's."""
    owner = draw(st.sampled_from(OWNERS))
    more = "".join(system(name) for name in draw(st.sets(NAMES, max_size=2)))
    for name, within in draw(st.dictionaries(NAMES, NAMES, max_size=2)).items():
        more += gallery(name, within)
    others = [one for one in OWNERS if one != owner]
    for name in draw(st.sets(NAMES, max_size=2)):
        more += kept_list(name, *draw(st.sets(st.sampled_from(others))))
    officers = ""
    for name in draw(st.sets(st.sampled_from(["a", "b", "c", "d"]), max_size=3)):
        lists = sorted(draw(st.sets(NAMES, max_size=1)))
        active = str(draw(st.booleans())).lower()
        officers += f"[officers.{name}]\nactive = {active}\nlists = {lists}\n"
        officers += f"certificates = {{ C = {draw(DAYS)} }}\n"
    return document(agency(owner, more), officers)


def at_once(newest: Mapping[str, Document]) -> Registry:
    """The registry that a file with all of it would make."""
    sections: dict[str, dict[str, Any]] = {}
    for read in newest.values():
        for section, entries in sections_of(read.public).items():
            sections.setdefault(section, {}).update(
                {name: one.model_dump() for name, one in entries.items()}
            )
        officers = sections.setdefault("officers", {})
        for name, standing in read.officers.items():
            officers[name] = {"agency": read.owner, **standing.model_dump()}
    return Registry.model_validate(sections)


@examples(0.6)
@given(st.lists(documents(), max_size=12))
def test_folding_is_building_at_once(sequence: list[Document]) -> None:
    fold = admitting(*OWNERS)
    newest: dict[str, Document] = {}
    for serial, read in enumerate(sequence, 1):
        ready = signed(read, serial)
        before = fold.registry.model_dump(), fold.sha256
        try:
            fold.check(ready)
        except RegistryRefused:
            assert (fold.registry.model_dump(), fold.sha256) == before
            continue
        publish(fold, ready)
        newest[read.owner] = read
    assert set(fold.registry.agencies) == set(newest)
    if newest:
        whole = at_once(newest)
        assert fold.registry.model_dump() == whole.model_dump()
        assert whole.days <= fold.registry.days


@pytest.mark.promise(9)
@examples(0.6)
@given(st.lists(documents(), max_size=12), st.randoms())
def test_what_counts_follows_from_public_bytes_whatever_was_expunged(
    sequence: list[Document], draw: random.Random
) -> None:
    """Also of what nobody tried before it was put on record."""
    live, later, last = (admitting(*OWNERS) for _ in range(3))
    for serial, read in enumerate(sequence, 1):
        for pending in published(live, signed(read, serial)):
            whole = openings(pending)
            left = {field: one for field, one in whole.items() if draw.random() < 0.5}
            counted = [
                counts(fold, pending.entry, opened)
                for fold, opened in ((live, whole), (later, left), (last, {}))
            ]
            assert counted in ([True] * 3, [False] * 3)
    assert live.sha256 == later.sha256 == last.sha256
    assert not last.registry.officers
    for fold in (live, later):
        # Nobody is on a list on which it may not be: Cedar would skip a rule, or err.
        Registry.model_validate(fold.registry.model_dump())
    assert live.registry.officers.keys() == undoubted(sequence_of(live, sequence))


def counts(fold: Fold, entry: Entry, opened: Mapping[str, str]) -> bool:
    try:
        fold.follow(entry, opened)
    except RegistryRefused:
        return False
    return True


def sequence_of(fold: Fold, sequence: list[Document]) -> list[Document]:
    """The documents that count."""
    return [sequence[one.statement.serial - 1] for one in fold.owners.values()]


def undoubted(newest: list[Document]) -> set[str]:
    """Officers whom one agency has, on lists that it may enter them on."""
    lists = {
        name: {read.owner, *kept.entered_by}
        for read in newest
        for name, kept in read.public.lists.items()
    }
    entered = Counter(officer for read in newest for officer in read.officers)
    return {
        officer
        for read in newest
        for officer, said in read.officers.items()
        if entered[officer] == 1 and all(read.owner in lists.get(name, ()) for name in said.lists)
    }


@examples(2)
@given(st.data())
def test_a_damaged_entry_is_refused_and_nothing_is_changed(data: st.DataObject) -> None:
    fold, expected = los_angeles(), los_angeles()
    changed = OFFICERS.replace("2099", "2098").replace("[officers.lapd-50999]\nactive = true\n", "")
    public = agency(LAPD, kept_list("lapd-fr-users"))
    if data.draw(st.booleans()):
        ready = signed(document(public, changed), 2)
    else:
        ready = signed(document(public + kept_list("more"), OFFICERS), 2)
    publish(expected, ready)
    before = fold.registry.model_dump(), fold.sha256
    (pending,) = published(fold, ready)
    raw = bytearray(pending.entry.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        entry = Entry.FromString(bytes(raw))
    except DecodeError:
        return
    try:
        applied = fold.apply(entry, openings(pending))
    except RegistryRefused:
        applied = None
    if applied is None:
        assert (fold.registry.model_dump(), fold.sha256) == before
    else:  # The damage was none: a byte replaced by itself, or outside what the owner published.
        assert entry.registry_published == pending.entry.registry_published
        assert entry.officers_published == pending.entry.officers_published
        assert fold.registry.model_dump() == expected.registry.model_dump()
        assert fold.sha256 == expected.sha256


@examples(1)
@given(st.data())
def test_a_damaged_opening_is_refused_and_nothing_is_changed(data: st.DataObject) -> None:
    fold = los_angeles()
    public = agency(LAPD, kept_list("lapd-fr-users"))
    ready = signed(document(public, OFFICERS.replace("2099", "2098")), 2)
    (pending,) = published(fold, ready)
    ((field, opening),) = openings(pending).items()
    at = data.draw(st.integers(0, len(opening) - 1))
    other = data.draw(st.characters(min_codepoint=0, max_codepoint=0x7F))
    damaged = opening[:at] + other + opening[at + 1 :]
    before = fold.registry.model_dump(), fold.sha256
    if damaged == opening:
        return
    with pytest.raises(RegistryRefused):
        fold.apply(pending.entry, {field: damaged})
    assert (fold.registry.model_dump(), fold.sha256) == before
    # Once the entry is on record, it counts all the same, and the officer is unknown.
    applied = fold.follow(pending.entry, {field: damaged})
    assert applied is not None
    assert applied.unopened == 1
    assert set(fold.registry.officers) == {"lapd-50999"}


@pytest.mark.promise(3)
@examples(1)
@given(st.data())
def test_who_counts_follows_from_the_orders_that_a_quorum_signed(data: st.DataObject) -> None:
    """Whatever is put on record, and whatever of it was expunged."""
    fold, later = (registrars.admitting(*OWNERS) for _ in range(2))
    expelled: set[str] = set()
    last: dict[str, Order] = {}
    keys = dict.fromkeys(OWNERS, 1)
    serial = 0
    for _ in range(data.draw(st.integers(1, 10))):
        owner = data.draw(st.sampled_from(OWNERS))
        if data.draw(st.booleans()):
            serial += 1
            key = signer(owner, keys[owner])
            ready = signed(document(agency(owner, keys=[key.vkey])), serial, key)
            told = [(one.entry, openings(one)) for one in published(fold, ready)]
            counted = owner not in expelled or (last[owner].action == "recover")
            if counted:
                expelled.discard(owner)
        else:
            by = data.draw(st.lists(st.sampled_from(SIGNERS), min_size=1, max_size=4))
            old = data.draw(st.sampled_from([last.get(owner), None]))
            recovers = data.draw(st.booleans())
            number = keys[owner] + recovers
            given_keys = [signer(owner, number).vkey] if recovers else []
            action: Action = "recover" if recovers else "expel"
            said = registrars.order(owner, action, *given_keys, follows=old)
            told = [(registrars.on_record(said, by), {})]
            enough = len(set(by)) == len(by) and len({*by} & {*registrars.THREE}) >= 2
            counted = enough and old == last.get(owner)
            if counted:
                last[owner], keys[owner] = said, number
                if not recovers:
                    expelled.add(owner)
        for entry, opened in told:
            assert counts(fold, entry, opened) == counts(later, entry, {}) == counted
    assert fold.expelled == later.expelled == fold.registry.expelled == expelled
    assert fold.sha256 == later.sha256
