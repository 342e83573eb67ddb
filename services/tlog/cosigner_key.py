"""The private key of a cosigner as one line of text, with the name that it signs under.

The form is that of Go's note package, `PRIVATE+KEY+<name>+<key id>+<base64 of type and seed>`, with the
signature types of tlog-cosignature.
"""

import base64

from tlog.cosignature import SEED_BYTES, CosignatureKind, Cosigner
from tlog.errors import TlogError
from tlog.note import decode_base64

_START = ["PRIVATE", "KEY"]


def write_cosigner_key(name: str, seed: bytes, kind: CosignatureKind) -> str:
    """Write a private key as `read_cosigner_key` reads it. What it gives is secret."""
    verifier = Cosigner.from_seed(name, seed, kind).verifier
    encoded = base64.b64encode(bytes([kind]) + seed).decode()
    return "+".join([*_START, name, verifier.key_id.hex(), encoded])


def read_cosigner_key(text: str) -> Cosigner:
    """Read a private key; raises TlogError, which quotes nothing of it."""
    parts = text.split("+", 4)
    if len(parts) != 5 or parts[:2] != _START:
        raise TlogError("not a cosigner's private key")
    _, _, name, key_id_hex, encoded = parts
    try:
        raw = decode_base64(encoded, "the key")
        kind = CosignatureKind(raw[0]) if len(raw) == 1 + SEED_BYTES else None
    except (TlogError, ValueError):
        kind = None
    if kind is None:
        raise TlogError("not a private key of a type that cosigns")
    cosigner = Cosigner.from_seed(name, raw[1:], kind)
    if cosigner.verifier.key_id.hex() != key_id_hex:
        raise TlogError("the private key's id does not belong to its name and key")
    return cosigner
