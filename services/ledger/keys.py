"""Reads the key that signs checkpoints."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.settings import SettingsError
from shared.signing import BadKey
from tlog.errors import TlogError
from tlog.note import Signer


def load_signer(path: Path, origin: str) -> Signer:
    """Read a PKCS #8 PEM file with an Ed25519 key; raises BadKey or SettingsError."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"cannot read a private key from {path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"the key in {path} is not an Ed25519 key")
    try:
        return Signer(origin, key)
    except TlogError as error:
        raise SettingsError(f"origin: {error}") from error
