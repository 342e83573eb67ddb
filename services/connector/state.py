"""What the connector keeps between starts, in one folder that only it may read."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

CANDIDATE_KEY_BYTES = 32


class StateError(Exception):
    """The folder, or something in it, cannot be used; the message says what."""


@dataclass(frozen=True)
class State:
    """Where things are."""

    folder: Path

    @property
    def runs(self) -> Path:
        """The answers that were given."""
        return self.folder / "runs.sqlite"

    @property
    def embeddings(self) -> Path:
        """Folder of the reference matcher's embeddings."""
        return self.folder / "embeddings"


def open_state(folder: Path) -> State:
    """Make the folder if need be; raises StateError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot make the state folder {folder}: {error.strerror}") from error
    return State(folder)


def candidate_key(state: State) -> bytes:
    """The key of candidate identifiers, made at the first start; raises StateError.

    Keep it as long as candidate lists are kept: without it an identifier leads to no record.
    """
    path = state.folder / "candidate-ids.key"
    try:
        # O_EXCL: of two first starts at once one makes the key and both use it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(CANDIDATE_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from error
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    if len(key) != CANDIDATE_KEY_BYTES:
        # Also what a crash in the middle of the first start leaves. Nothing was answered with it.
        raise StateError(f"{path} has {len(key)} bytes, not {CANDIDATE_KEY_BYTES}")
    return key
