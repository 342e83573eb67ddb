"""Signatures are good for one purpose, one key and the exact bytes."""

from pathlib import Path

import pytest

from shared.sealing import PrivateKey
from shared.signing import (
    ANSWER_CONTEXT,
    ORDER_CONTEXT,
    BadKey,
    BadSignature,
    SigningKey,
    VerifyKey,
    key_id,
)

# PKCS #8 with the object identifier 1.2.3.4, which no library knows.
UNKNOWN_ALGORITHM = """-----BEGIN PRIVATE KEY-----
MBECAQAwBQYDKgMEBAUEAwECAw==
-----END PRIVATE KEY-----
"""


def test_signature_for_one_purpose_does_not_serve_another() -> None:
    key = SigningKey.generate()
    signature = key.sign(ORDER_CONTEXT, b"data")
    key.verify_key.verify(ORDER_CONTEXT, b"data", signature)
    with pytest.raises(BadSignature):
        key.verify_key.verify(ANSWER_CONTEXT, b"data", signature)


def test_bytes_cannot_be_moved_between_context_and_data() -> None:
    key = SigningKey.generate()
    signature = key.sign("order", b"/v1\0data")
    with pytest.raises(BadSignature):
        key.verify_key.verify("order/v1", b"data", signature)


@pytest.mark.parametrize("signature", [b"", b"short", bytes(64), bytes(65)])
def test_what_is_no_signature_does_not_verify(signature: bytes) -> None:
    with pytest.raises(BadSignature):
        SigningKey.generate().verify_key.verify(ORDER_CONTEXT, b"data", signature)


def test_another_keys_signature_does_not_verify() -> None:
    signature = SigningKey.generate().sign(ORDER_CONTEXT, b"data")
    with pytest.raises(BadSignature):
        SigningKey.generate().verify_key.verify(ORDER_CONTEXT, b"data", signature)


def test_key_survives_its_file(tmp_path: Path) -> None:
    key = SigningKey.generate()
    (tmp_path / "key.pem").write_bytes(key.pem())
    loaded = SigningKey.load(tmp_path / "key.pem")
    assert loaded.key_id == key.key_id == key_id(key.verify_key.raw)
    key.verify_key.verify(ORDER_CONTEXT, b"data", loaded.sign(ORDER_CONTEXT, b"data"))


@pytest.mark.parametrize("content", ["", "not PEM", UNKNOWN_ALGORITHM])
def test_file_without_a_key_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.pem").write_text(content)
    with pytest.raises(BadKey, match=r"broken\.pem"):
        SigningKey.load(tmp_path / "broken.pem")
    with pytest.raises(BadKey):
        PrivateKey.load(tmp_path / "broken.pem")


def test_missing_file_and_key_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match=r"absent\.pem"):
        SigningKey.load(tmp_path / "absent.pem")
    with pytest.raises(BadKey, match=r"absent\.pem"):
        PrivateKey.load(tmp_path / "absent.pem")
    (tmp_path / "sealing.pem").write_bytes(PrivateKey.generate().pem())
    (tmp_path / "signing.pem").write_bytes(SigningKey.generate().pem())
    with pytest.raises(BadKey, match=r"sealing\.pem"):
        SigningKey.load(tmp_path / "sealing.pem")
    with pytest.raises(BadKey, match="X25519"):
        PrivateKey.load(tmp_path / "signing.pem")


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33)])
def test_public_key_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(BadKey):
        VerifyKey(raw)
