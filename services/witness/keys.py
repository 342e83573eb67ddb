"""The witness's own keys: one line of text in a file, with the name that it signs under.

The form is that of Go's note package, `PRIVATE+KEY+<name>+<key id>+<base64 of type and seed>`, with the
signature types of C2SP tlog-cosignature: 0x04 (Ed25519) and 0x06 (ML-DSA-44).
"""

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.signing import BadKey
from tlog.cosignature import SEED_BYTES, CosignatureKind, CosignatureVerifier, Cosigner
from tlog.errors import TlogError
from tlog.note import decode_base64

FILES: Final = {
    CosignatureKind.ED25519: "witness-ed25519",
    CosignatureKind.ML_DSA_44: "witness-ml-dsa-44",
}
"""Name of each kind's file, without its ending."""

KEY_FILE_BYTES_MAX: Final = 1_024
_START: Final = ("PRIVATE", "KEY")


@dataclass(frozen=True)
class NewKey:
    """A key that was just made."""

    file: Path
    verifier: CosignatureVerifier


def new_keys(name: str, folder: Path) -> list[NewKey]:
    """Make a key of each kind with its public half beside it; raises BadKey, and replaces nothing."""
    made: list[NewKey] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stem in FILES.values():
            for file in (folder / f"{stem}.key", folder / f"{stem}.vkey"):
                if file.exists():
                    raise BadKey(f"{file} is there already; a key is never replaced")
        for kind, stem in FILES.items():
            seed = os.urandom(SEED_BYTES)
            verifier = Cosigner.from_seed(name, seed, kind).verifier
            _write(folder / f"{stem}.key", key_text(verifier, seed), 0o600)
            _write(folder / f"{stem}.vkey", verifier.vkey, 0o644)
            made.append(NewKey(folder / f"{stem}.key", verifier))
    except TlogError as error:
        raise BadKey(f"{name}: {error}") from error
    except OSError as error:
        raise BadKey(f"cannot write to {folder}: {error.strerror or error}") from error
    return made


def key_text(verifier: CosignatureVerifier, seed: bytes) -> str:
    """Write a private key as `load_cosigner` reads it."""
    encoded = base64.b64encode(bytes([verifier.kind]) + seed).decode()
    return "+".join([*_START, verifier.name, verifier.key_id.hex(), encoded])


def load_cosigner(path: Path) -> Cosigner:
    """Read a key file; raises BadKey, which never quotes its content."""
    try:
        with path.open("rb") as file:
            text = file.read(KEY_FILE_BYTES_MAX).decode("ascii").removesuffix("\n")
    except OSError as error:
        raise BadKey(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise BadKey(f"{path} is not a witness's key file") from None
    parts = text.split("+", 4)
    if len(parts) != 5 or tuple(parts[:2]) != _START:
        raise BadKey(f"{path} is not a witness's key file")
    try:
        raw = decode_base64(parts[4], "the key")
        if len(raw) != 1 + SEED_BYTES:
            raise BadKey(f"{path} is not a witness's key file")
        cosigner = Cosigner.from_seed(parts[2], raw[1:], CosignatureKind(raw[0]))
    except (TlogError, ValueError):
        raise BadKey(f"{path} is not a witness's key file") from None
    if cosigner.verifier.key_id.hex() != parts[3]:
        raise BadKey(f"{path} is damaged: its key id does not belong to its name and key")
    return cosigner


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
