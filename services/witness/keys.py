"""The witness's own keys: one line of text in a file, with the name that it signs under."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.signing import BadKey
from tlog.cosignature import SEED_BYTES, CosignatureKind, CosignatureVerifier, Cosigner
from tlog.cosigner_key import read_cosigner_key, write_cosigner_key
from tlog.errors import TlogError

FILES: Final = {
    CosignatureKind.ED25519: "witness-ed25519",
    CosignatureKind.ML_DSA_44: "witness-ml-dsa-44",
}
"""Name of each kind's file, without its ending."""

KEY_FILE_BYTES_MAX: Final = 1_024


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
            _write(folder / f"{stem}.key", write_cosigner_key(name, seed, kind), 0o600)
            _write(folder / f"{stem}.vkey", verifier.vkey, 0o644)
            made.append(NewKey(folder / f"{stem}.key", verifier))
    except TlogError as error:
        raise BadKey(f"{name}: {error}") from error
    except OSError as error:
        raise BadKey(f"cannot write to {folder}: {error.strerror or error}") from error
    return made


def load_cosigner(path: Path) -> Cosigner:
    """Read a key file; raises BadKey, which never quotes its content."""
    try:
        with path.open("rb") as file:
            text = file.read(KEY_FILE_BYTES_MAX).decode("ascii").removesuffix("\n")
        return read_cosigner_key(text)
    except OSError as error:
        raise BadKey(f"cannot read {path}: {error.strerror or error}") from error
    except (TlogError, UnicodeDecodeError):
        raise BadKey(f"{path} is not a witness's key file, or is damaged") from None


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
