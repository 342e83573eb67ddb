"""The digest of a request stands for everything that the decision was about."""

from collections.abc import Callable

import pytest

from countersign.type.v1.search_pb2 import BoundRequest, SealedPayload, SearchFacts
from shared.binding import bind, payload_digest, request_digest
from support.orders import facts

PROBE = SealedPayload(kem_id=32, kdf_id=1, aead_id=2, key_id="0" * 16, ciphertext=b"c" * 64)
KEY, SALT = b"k" * 32, b"s" * 32


def digest(
    stated: SearchFacts,
    officer: str = "lapd-40123",
    probe: SealedPayload = PROBE,
    key: bytes = KEY,
    salt: bytes = SALT,
) -> bytes:
    return request_digest(bind(stated, officer, probe, key, salt))


def test_same_request_has_the_same_digest() -> None:
    assert digest(facts()) == digest(facts())


def test_bound_request_holds_what_was_given() -> None:
    bound = BoundRequest.FromString(bind(facts(), "lapd-40123", PROBE, KEY, SALT))
    assert bound.facts == facts()
    assert (bound.officer, bound.salt, bound.answer_public_key) == ("lapd-40123", SALT, KEY)
    assert bound.sealed_probe_sha256 == payload_digest(PROBE)


def _other(name: str, value: object) -> Callable[[SearchFacts], None]:
    return lambda stated: setattr(stated, name, value)


FACTS_CHANGED = {
    "search_id": _other("search_id", "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11"),
    "origin_agency": _other("origin_agency", "CA0191200"),
    "beneficiary_agency": _other("beneficiary_agency", "CA0191200"),
    "beneficiary unknown": lambda stated: stated.ClearField("beneficiary_agency"),
    "beneficiary empty": _other("beneficiary_agency", ""),
    "system": _other("system", "facefind"),
    "gallery": _other("gallery", "facefind-web"),
    "purpose": _other("purpose", 5),
    "suspicion": _other("suspicion", 3),
    "offence code": lambda stated: setattr(stated.offence, "nibrs_code", "09A"),
    "offence statute": lambda stated: setattr(stated.offence, "statute", "another"),
    "offence attempt": lambda stated: setattr(stated.offence, "attempt", True),
    "offence severity": lambda stated: setattr(stated.offence, "severity", 3),
    "provenance": _other("provenance", 2),
    "capture_mode": _other("capture_mode", 2),
    "case_number": _other("case_number", "26-0000002"),
    "narrative": _other("narrative", "something else"),
    "candidates_max": _other("candidates_max", 7),
    "circumstances": lambda stated: setattr(stated.circumstances, "unsolicited", False),
    "circumstances of the instrument": lambda stated: setattr(
        stated.circumstances.instrument, "kind", 2
    ),
    "instrument_number": _other("instrument_number", "26-SW-1"),
    "emergency_basis": _other("emergency_basis", "something"),
    "expires_after": lambda stated: stated.expires_after.FromSeconds(60),
}


def test_every_fact_is_among_the_changes() -> None:
    named = " ".join(FACTS_CHANGED)
    fields = [field.name for field in SearchFacts.DESCRIPTOR.fields]
    assert [name for name in fields if name.split("_")[0] not in named] == []


@pytest.mark.parametrize("change", FACTS_CHANGED.values(), ids=FACTS_CHANGED.keys())
def test_any_changed_fact_changes_the_digest(change: Callable[[SearchFacts], None]) -> None:
    changed = facts()
    change(changed)
    assert digest(changed) != digest(facts())


def test_officer_probe_answer_key_and_salt_are_bound_too() -> None:
    other = SealedPayload()
    other.CopyFrom(PROBE)
    other.ciphertext = b"C" + PROBE.ciphertext[1:]
    changed = [
        digest(facts(), officer="lapd-40777"),
        digest(facts(), probe=other),
        digest(facts(), key=b"K" + KEY[1:]),
        digest(facts(), salt=b"S" + SALT[1:]),
    ]
    assert len({digest(facts()), *changed}) == len(changed) + 1
