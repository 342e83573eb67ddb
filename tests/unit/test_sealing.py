"""A sealed payload opens with one key, for one purpose, unchanged, and not otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.type.v1.search_pb2 import SealedPayload
from shared.sealing import (
    SEALED_BYTES_MAX,
    SEALING_OVERHEAD_BYTES,
    PrivateKey,
    Unopenable,
    can_be_sealed_to,
    candidates_info,
    probe_info,
    seal,
)
from shared.signing import BadKey, key_id

INFO = probe_info("7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10", "lacris")


def _near_the_prime(number: int) -> bytes:
    return (2**255 - 19 - number).to_bytes(32, "little")


@pytest.fixture
def recipient() -> PrivateKey:
    return PrivateKey.generate()


def test_payload_names_its_suite_and_key(recipient: PrivateKey) -> None:
    payload = seal(recipient.public_key, b"a probe", INFO)
    assert (payload.kem_id, payload.kdf_id, payload.aead_id) == (0x20, 1, 2)
    assert payload.key_id == key_id(recipient.public_key)
    assert len(payload.ciphertext) == len(b"a probe") + SEALING_OVERHEAD_BYTES
    assert recipient.open(payload, INFO) == b"a probe"


def test_sealing_twice_gives_different_bytes(recipient: PrivateKey) -> None:
    first = seal(recipient.public_key, b"a probe", INFO)
    assert first != seal(recipient.public_key, b"a probe", INFO)


@pytest.mark.parametrize(
    "info",
    [
        b"",
        probe_info("7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11", "lacris"),
        probe_info("7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10", "facefind"),
        candidates_info("7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10", b"lacris"),
    ],
)
def test_probe_of_one_search_does_not_open_as_anothers(recipient: PrivateKey, info: bytes) -> None:
    with pytest.raises(Unopenable):
        recipient.open(seal(recipient.public_key, b"a probe", INFO), info)


def test_another_key_does_not_open_it(recipient: PrivateKey) -> None:
    with pytest.raises(Unopenable):
        PrivateKey.generate().open(seal(recipient.public_key, b"a probe", INFO), INFO)


@pytest.mark.parametrize("field", ["kem_id", "kdf_id", "aead_id"])
def test_another_suite_is_not_tried(recipient: PrivateKey, field: str) -> None:
    payload = seal(recipient.public_key, b"a probe", INFO)
    setattr(payload, field, 99)
    with pytest.raises(Unopenable, match="99"):
        recipient.open(payload, INFO)


@pytest.mark.parametrize(
    "ciphertext", [b"", bytes(31), bytes(32), bytes(47), bytes(48), bytes(SEALED_BYTES_MAX + 1)]
)
def test_what_is_no_ciphertext_does_not_open(recipient: PrivateKey, ciphertext: bytes) -> None:
    payload = SealedPayload(kem_id=0x20, kdf_id=1, aead_id=2, ciphertext=ciphertext)
    with pytest.raises(Unopenable):
        recipient.open(payload, INFO)


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(33), bytes(32)])
def test_what_is_no_key_is_not_sealed_to(public_key: bytes) -> None:
    assert not can_be_sealed_to(public_key)
    with pytest.raises(BadKey):
        seal(public_key, b"a probe", INFO)


ORDER_EIGHT = (
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
)
LOW_ORDER = [
    *(number.to_bytes(32, "little") for number in (0, 1)),
    *(bytes.fromhex(point) for point in ORDER_EIGHT),
    *(number.to_bytes(32, "little") for number in range(2**255 - 20, 2**255 - 17)),
]


@pytest.mark.parametrize("high_bit", [0, 0x80])
@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_no_point_of_low_order_is_sealed_to(point: bytes, high_bit: int) -> None:
    """Whichever way it is spelled: the curve ignores the highest bit, and takes numbers past its prime."""
    spelled = point[:31] + bytes([point[31] | high_bit])
    assert not can_be_sealed_to(spelled)
    with pytest.raises(BadKey):
        seal(spelled, b"a probe", INFO)


@given(st.binary(min_size=32, max_size=32) | st.integers(-18, 300).map(_near_the_prime))
def test_what_can_be_sealed_to_is_what_is_sealed_to(public_key: bytes) -> None:
    try:
        seal(public_key, b"a probe", INFO)
    except BadKey:
        assert not can_be_sealed_to(public_key)
    else:
        assert can_be_sealed_to(public_key)
