"""A quorum of registrars gives an owner new keys, or expels it; nobody else can, and nobody twice."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.orders import Order, SignedOrder, cosign, sign
from support.registrars import DAY, REGISTRARS, THREE, admitting, note, on_record, order
from support.registrations import (
    BURBANK,
    CALIFORNIA,
    LAPD,
    LAPD_PUBLIC,
    LASD,
    LASD_PUBLIC,
    OFFICERS,
    agency,
    document,
    kept_list,
    publish,
    published,
    signed,
    signer,
    state,
    system,
)
from tlog.note import Signer

pytestmark = pytest.mark.promise(3)

NEW = signer(LAPD, 2)
WITH_NEW_KEY = agency(LAPD, kept_list("lapd-fr-users"), keys=[NEW.vkey])
OVERSEERS = '[oversight.board]\nname = "Board"\njurisdictions = ["US-CA"]\nrights = ["find"]\n'


def los_angeles() -> Fold:
    fold = admitting(LAPD, LASD, BURBANK, CALIFORNIA)
    publish(fold, signed(document(LASD_PUBLIC), 1))
    publish(fold, signed(document(LAPD_PUBLIC, OFFICERS), 1))
    return fold


def refusals(fold: Fold, entry: Entry, *, also_on_record: bool = True) -> str:
    """Why an order does not count, before it is on record and there; nothing changes."""
    before = state(fold)
    with pytest.raises(RegistryRefused) as refused:
        fold.apply(entry, {})
    if also_on_record:
        with pytest.raises(RegistryRefused) as followed:
            fold.follow(entry, {})
        assert str(followed.value) == str(refused.value)
    assert state(fold) == before
    return str(refused.value)


def test_an_owner_that_lost_all_its_keys_publishes_with_those_that_a_quorum_gave_it() -> None:
    fold = los_angeles()
    fold.apply(on_record(order(LAPD, "recover", NEW.vkey)), {})
    # Nothing of what it registered is gone meanwhile.
    assert set(fold.registry.officers) == {"lapd-40123", "lapd-50999"}
    assert not fold.registry.expelled
    publish(fold, signed(document(WITH_NEW_KEY, OFFICERS), 1, NEW))
    publish(fold, signed(document(WITH_NEW_KEY), 2, NEW))
    assert not fold.registry.officers


def test_a_key_of_before_signs_nothing_more_and_is_never_named_again() -> None:
    """Whoever holds it would go on as before."""
    fold = los_angeles()
    ready = signed(document(LAPD_PUBLIC), 2)
    fold.check(ready)
    fold.apply(on_record(order(LAPD, "recover", NEW.vkey)), {})
    with pytest.raises(RegistryRefused, match="SIGNATURE_OTHER_PARTY"):
        fold.check(ready)
    both = agency(LAPD, keys=[NEW.vkey, signer(LAPD).vkey])
    for serial, public in ((2, both), (3, LAPD_PUBLIC)):
        with pytest.raises(RegistryRefused, match="KEY_GIVEN_UP"):
            fold.check(signed(document(public), serial, NEW))
    publish(fold, signed(document(WITH_NEW_KEY), 1, NEW))
    with pytest.raises(RegistryRefused, match="KEY_GIVEN_UP"):
        fold.check(signed(document(both), 2, NEW))


def test_a_thief_who_used_up_the_serial_numbers_keeps_nobody_out() -> None:
    fold = los_angeles()
    publish(fold, signed(document(LAPD_PUBLIC), 2**63 - 1))
    fold.apply(on_record(order(LAPD, "recover", NEW.vkey)), {})
    publish(fold, signed(document(WITH_NEW_KEY), 1, NEW))
    with pytest.raises(RegistryRefused, match="SERIAL_OLD"):
        fold.check(signed(document(WITH_NEW_KEY), 1, NEW))


def test_a_publication_that_had_begun_ends_with_the_order() -> None:
    fold = los_angeles()
    ready = signed(document(LASD_PUBLIC + "# a remark\n" * 20_000), 2)
    entries = [one.entry for one in published(fold, ready)]
    fold.follow(entries[0], {})
    assert fold.is_under_way(LASD)
    fold.follow(on_record(order(LASD, "recover", signer(LASD, 2).vkey)), {})
    with pytest.raises(RegistryRefused, match="PART"):
        fold.follow(entries[1], {})


@pytest.mark.promise(7)
def test_who_is_expelled_counts_for_nothing_and_nothing_that_a_rule_names_is_gone() -> None:
    fold = los_angeles()
    publish(fold, signed(document(agency(CALIFORNIA, OVERSEERS)), 1))
    before = fold.registry
    for owner in (LAPD, CALIFORNIA):
        fold.apply(on_record(order(owner)), {})
    after = fold.registry
    assert after.expelled == {LAPD, CALIFORNIA}
    assert not after.officers
    assert not after.oversight
    for table in ("agencies", "systems", "galleries", "lists", "offence_sets", "unions"):
        assert getattr(after, table) == getattr(before, table)
    with pytest.raises(RegistryRefused, match="EXPELLED"):
        fold.check(signed(document(LAPD_PUBLIC), 2))
    # What was given out, by which searches of before were decided, stays as it was.
    assert before.officers
    assert not before.expelled


def test_officers_of_others_on_an_expelled_keepers_list_are_unknown() -> None:
    fold = admitting(LAPD, BURBANK)
    publish(fold, signed(document(agency(LAPD, kept_list("ours", BURBANK))), 1))
    theirs = '[officers.b-1]\nactive = true\nlists = ["ours"]\n[officers.b-2]\nactive = true\n'
    publish(fold, signed(document(agency(BURBANK), theirs), 1))
    applied = fold.apply(on_record(order(LAPD)), {})
    assert set(fold.registry.officers) == {"b-2"}
    assert applied is not None
    assert applied.doubtful == 1


def test_an_officer_whom_an_expelled_agency_claims_may_be_anothers() -> None:
    fold = los_angeles()
    theirs = document(agency(BURBANK), "[officers.lapd-40123]\nactive = true\n")
    with pytest.raises(RegistryRefused, match="NAME_TAKEN"):
        fold.check(signed(theirs, 1))
    fold.apply(on_record(order(LAPD)), {})
    publish(fold, signed(theirs, 1))
    assert fold.registry.officers["lapd-40123"].agency == BURBANK


def test_who_was_expelled_is_back_once_it_has_published_with_new_keys() -> None:
    fold = los_angeles()
    publish(fold, signed(document(agency(CALIFORNIA, OVERSEERS)), 1))
    out, out_too = order(LAPD), order(CALIFORNIA)
    fold.apply(on_record(out), {})
    fold.apply(on_record(out_too), {})
    state_key = signer(CALIFORNIA, 2)
    fold.apply(on_record(order(LAPD, "recover", NEW.vkey, follows=out)), {})
    fold.apply(on_record(order(CALIFORNIA, "recover", state_key.vkey, follows=out_too)), {})
    assert fold.registry.expelled == {LAPD, CALIFORNIA}
    publish(fold, signed(document(WITH_NEW_KEY, OFFICERS), 1, NEW))
    california = agency(CALIFORNIA, OVERSEERS, keys=[state_key.vkey])
    publish(fold, signed(document(california), 1, state_key))
    assert not fold.registry.expelled
    assert set(fold.registry.officers) == {"lapd-40123", "lapd-50999"}
    assert set(fold.registry.oversight) == {"board"}


def test_the_names_of_who_is_expelled_are_not_free() -> None:
    fold = los_angeles()
    fold.apply(on_record(order(LASD)), {})
    with pytest.raises(RegistryRefused, match="NAME_TAKEN"):
        fold.check(signed(document(agency(BURBANK, system("lacris"))), 1))


def test_an_owner_that_has_published_nothing_can_be_given_keys_and_expelled() -> None:
    fold = admitting(LAPD)
    first = order(LAPD, "recover", NEW.vkey)
    fold.apply(on_record(first), {})
    with pytest.raises(RegistryRefused, match="SIGNATURE_OTHER_PARTY"):
        fold.check(signed(document(LAPD_PUBLIC), 1))
    publish(fold, signed(document(WITH_NEW_KEY), 1, NEW))
    fold.apply(on_record(order(LAPD, follows=first)), {})
    assert fold.registry.expelled == {LAPD}


@pytest.mark.promise(9)
def test_the_digest_tells_of_orders_and_an_outsider_can_work_it_out() -> None:
    fold = los_angeles()
    digests = {}
    for owner in (LAPD, LASD):
        known = fold.published(owner)
        assert known is not None
        digests[owner] = known.statement.sha256
    said = order(LAPD)
    fold.apply(on_record(said), {})
    ordered = hashlib.sha256(said.text.encode()).digest()
    whole = digests[LASD] + digests[LAPD] + ordered
    expected = hashlib.sha256(b"countersign/registry/v1\0" + whole).digest()
    assert fold.sha256 == fold.registry.sha256 == expected


TOO_FEW = {
    "one": THREE[:1],
    "strangers": [Signer.from_seed(f"stranger-{n}.example", bytes([9 + n]) * 32) for n in (1, 2)],
    "one and a stranger": [THREE[0], Signer.from_seed("stranger.example", bytes([9]) * 32)],
    "one under two names": [THREE[0], Signer.from_seed("other.example", bytes([1]) * 32)],
    "the owner itself": [THREE[0], signer(LAPD)],
}


@pytest.mark.parametrize("who", TOO_FEW)
def test_without_a_quorum_nothing_is_ordered(who: str) -> None:
    assert "[QUORUM]" in refusals(los_angeles(), on_record(order(LAPD), TOO_FEW[who]))


def test_without_registrars_in_the_trust_roots_there_is_no_way() -> None:
    fold = admitting(LAPD, registrars=())
    assert "[NO_REGISTRARS]" in refusals(fold, on_record(order(LAPD), THREE))


def test_a_signature_of_something_else_is_refused() -> None:
    entry = on_record(order(LAPD))
    said = entry.registrars_ordered
    said.note = said.note.replace("lost laptop", "lost tablet")
    assert "[SIGNATURE_FALSE]" in refusals(los_angeles(), entry)


def test_the_same_signer_twice_is_refused() -> None:
    entry = on_record(order(LAPD), [THREE[0], THREE[0]])
    assert "[SIGNED_TWICE]" in refusals(los_angeles(), entry)
    with pytest.raises(RegistryRefused, match="SIGNED_TWICE"):
        cosign(note(order(LAPD), THREE[:1]), THREE[0])


def test_signers_may_sign_one_after_the_other() -> None:
    fold, said = los_angeles(), order(LAPD)
    whole = cosign(sign(said, THREE[0]), THREE[2])
    assert whole == note(said, [THREE[0], THREE[2]])
    fold.apply(on_record(said, [THREE[0], THREE[2]]), {})
    ruled = fold.ruled(LAPD)
    assert ruled is not None
    assert ruled.signed_by == (THREE[0].name, THREE[2].name)


def test_an_order_for_another_log_is_refused_and_it_is_said_which() -> None:
    said = on_record(order(LAPD, log="other.example/log"))
    assert "signed for other.example/log" in (found := refusals(los_angeles(), said))
    assert "[SIGNED_FOR_OTHER_LOG]" in found


def test_an_order_counts_once() -> None:
    fold = los_angeles()
    out = order(LAPD)
    fold.apply(on_record(out), {})
    assert "[ORDER_REPLAYED]" in refusals(fold, on_record(out))
    back = order(LAPD, "recover", NEW.vkey, follows=out)
    fold.apply(on_record(back), {})
    publish(fold, signed(document(WITH_NEW_KEY), 1, NEW))
    for old in (out, back):
        assert "[ORDER_REPLAYED]" in refusals(fold, on_record(old))


def test_an_order_that_lay_in_a_drawer_counts_no_more() -> None:
    fold, said = los_angeles(), order(LAPD)
    assert "[ORDER_EXPIRED]" in refusals(fold, on_record(said, day=said.before))
    undated = on_record(said)
    undated.ClearField("recorded_at")
    assert "[ORDER_EXPIRED]" in refusals(fold, undated)
    fold.apply(on_record(said, day=date(2026, 11, 30)), {})


def test_an_owner_that_nobody_admitted_is_unknown() -> None:
    assert "[OWNER_UNKNOWN]" in refusals(los_angeles(), on_record(order("NV0020100")))


def test_an_entry_that_names_another_owner_is_refused() -> None:
    entry = on_record(order(LAPD))
    entry.registrars_ordered.owner = LASD
    assert "[ORDER]" in refusals(los_angeles(), entry)


def test_a_registrar_who_signs_for_an_owner_does_not_judge_it() -> None:
    registrar = THREE[1]
    fold = los_angeles()
    publish(fold, signed(document(agency(LAPD, keys=[registrar.vkey])), 2))
    # It merely names the key, which is no secret: that keeps nobody from expelling it.
    copy = fold.copy()
    copy.apply(on_record(order(LAPD)), {})
    publish(fold, signed(document(agency(LAPD, keys=[registrar.vkey])), 3, registrar))
    assert "[REGISTRAR_IS_OWNER]" in refusals(fold, on_record(order(LAPD)))
    fold.apply(on_record(order(LAPD), [THREE[0], THREE[2]]), {})
    given = order(LASD, "recover", THREE[0].vkey)
    assert "[REGISTRAR_IS_OWNER]" in refusals(fold, on_record(given))


def test_an_owner_is_given_no_key_that_it_had() -> None:
    said = on_record(order(LAPD, "recover", signer(LAPD).vkey))
    # On record it counts: the trust roots may have been given the new key since.
    assert "[KEY_NOT_NEW]" in refusals(los_angeles(), said, also_on_record=False)
    fold = Fold({LAPD: [NEW.vkey]}, order(LAPD).log, [REGISTRARS])
    fold.follow(on_record(order(LAPD, "recover", NEW.vkey)), {})
    assert fold.signers(LAPD) == (NEW.verifier,)


def test_registrars_who_were_replaced_order_nothing_more_and_what_they_ordered_stays() -> None:
    old = REGISTRARS.model_copy(update={"until": DAY})
    others = [Signer.from_seed(f"next-{n}.example", bytes([20 + n]) * 32) for n in (1, 2)]
    now = REGISTRARS.model_copy(update={"keys": tuple(one.vkey for one in others)})
    fold = admitting(LAPD, LASD, registrars=(old, now))
    fold.follow(on_record(order(LAPD), day=date(2026, 11, 21)), {})
    assert "[QUORUM]" in refusals(fold, on_record(order(LASD)))
    assert "[QUORUM]" in refusals(fold, on_record(order(LASD), [THREE[0], others[0]]))
    fold.follow(on_record(order(LASD), others), {})
    assert fold.expelled == {LAPD, LASD}


CHANGES: dict[str, Callable[[Order], Order]] = {
    "two lines": lambda said: replace(said, reason="one\ntwo"),
    "turned around": lambda said: replace(said, reason="read \u202eesrever"),
    "empty": lambda said: replace(said, authority=" "),
    "too long": lambda said: replace(said, authority="x" * 1001),
    "no keys": lambda said: replace(said, action="recover"),
    "keys to expel": lambda said: replace(said, keys=(NEW.vkey,)),
    "a key twice": lambda said: replace(said, action="recover", keys=(NEW.vkey, NEW.vkey)),
    "no key": lambda said: replace(said, action="recover", keys=("x",)),
    "too many keys": lambda said: replace(
        said, action="recover", keys=tuple(signer(LAPD, n).vkey for n in range(2, 19))
    ),
    "no owner": lambda said: replace(said, owner="lapd"),
    "no log": lambda said: replace(said, log="two words"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_nobody_could_have_meant_is_not_signed_and_does_not_count(change: str) -> None:
    said = CHANGES[change](order(LAPD))
    with pytest.raises(RegistryRefused, match="ORDER"):
        sign(said, THREE[0])
    assert "[ORDER]" in refusals(los_angeles(), on_record(said))


def test_what_is_no_order_is_refused() -> None:
    for text in ("", "nothing", note(order(LAPD)) * 200, "x\n\n\N{EM DASH} a aaaa\n"):
        with pytest.raises(RegistryRefused, match="ORDER"):
            SignedOrder.parse(text)
