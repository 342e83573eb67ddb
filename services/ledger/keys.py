"""The keys of the log. Each of them signs every checkpoint, so that one can take over from another.

While a key is rotated, the old one and the new one both sign; whoever trusts either goes on verifying.
An ML-DSA-44 key stands beside an Ed25519 key, never in its place (decision 0009).
"""

import os
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.clock import Clock, SystemClock
from shared.settings import SettingsError
from shared.signing import BadKey
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.cosignature import SEED_BYTES, CosignatureKind, Cosigner, LogCosigner, LogVerifier
from tlog.cosigner_key import read_cosigner_key, write_cosigner_key
from tlog.errors import TlogError
from tlog.note import NoteSigner, Signer, UnverifiedNote, Verifier

KEYS_MAX: Final = 4
"""An old key, a new one, and as much again for a second kind of signature."""
_POST_QUANTUM_FILE: Final = b"PRIVATE+KEY+"


class KeyUnavailable(Exception):
    """A key cannot sign at this moment: its module does not answer, or gave a signature that is none."""


class LogKey(NoteSigner, Protocol):
    """A key of the log, wherever it is kept. Used by one thread at a time."""

    @property
    def verifier(self) -> LogVerifier:
        """Verifies what it signs."""

    def sign_bytes(self, data: bytes) -> bytes:
        """Give the raw signature over these bytes; raises KeyUnavailable."""


class LogKeys:
    """The keys that sign the checkpoints of one log."""

    def __init__(self, *keys: LogKey) -> None:
        if not 1 <= len(keys) <= KEYS_MAX:
            raise SettingsError(f"signing_keys: there must be 1 to {KEYS_MAX} keys")
        if len({key.name for key in keys}) != 1:
            raise SettingsError("signing_keys: all keys of a log bear its name")
        if len({key.vkey for key in keys}) != len(keys):
            raise SettingsError("signing_keys: one key is named twice")
        if not isinstance(keys[0].verifier, Verifier):
            raise SettingsError(
                "signing_keys: the first key is Ed25519, which every reader of the log knows; an ML-DSA-44 "
                "key stands beside it"
            )
        self._keys = keys
        self.verifiers: Final[tuple[LogVerifier, ...]] = tuple(key.verifier for key in keys)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._keys[0].name

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier keys, in the order of the configuration."""
        return tuple(key.vkey for key in self._keys)

    def endorse(self, data: bytes) -> list[tuple[str, bytes]]:
        """Give each verifier key with its raw signature over these bytes; raises KeyUnavailable."""
        return [(key.vkey, key.sign_bytes(data)) for key in self._keys]

    def sign(self, checkpoint: Checkpoint) -> str:
        """Give the note of a checkpoint with a line by each key; raises KeyUnavailable.

        Every line is verified before the note is used: a faulty one, once stored, would keep the log from
        starting again.
        """
        note = sign_checkpoint(checkpoint, *self._keys)
        try:
            signed = UnverifiedNote.parse(note).verify(self.verifiers)
        except TlogError as error:
            raise KeyUnavailable(f"a key gave a signature that does not verify: {error}") from error
        if len(signed) != len(self._keys):
            raise KeyUnavailable("a key signed under another name")
        return note


class FileKey(Signer):
    """A key in this process's memory, from a file."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        super().__init__(name, private_key)
        self._private_key = private_key

    def sign_bytes(self, data: bytes) -> bytes:
        """Give the 64 bytes over the data."""
        return self._private_key.sign(data)


class PostQuantumKey:
    """An ML-DSA-44 key in this process's memory: cosigns the log's own checkpoints, with their time."""

    def __init__(self, cosigner: Cosigner, clock: Clock) -> None:
        self.verifier: Final = cosigner.verifier
        self._cosigner = cosigner
        self._clock = clock
        self._latest_s = 0
        self._line = LogCosigner(cosigner, self._time_s)

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self.verifier.name

    @property
    def vkey(self) -> str:
        """The verifier key that others need."""
        return self.verifier.vkey

    def sign(self, text: str) -> str:
        """Give one signature line for a checkpoint's text, with its line feed."""
        return self._line.sign(text)

    def sign_bytes(self, data: bytes) -> bytes:
        """Give the 2,420 bytes over the data."""
        return self._cosigner.sign_bytes(data)

    def _time_s(self) -> int:
        # The guard forgives a clock that went back a little; a line's time says "nothing larger by then".
        self._latest_s = max(self._latest_s, int(self._clock.now().timestamp()))
        return self._latest_s


def load_file_key(path: Path, origin: str) -> FileKey | PostQuantumKey:
    """Read a key file: PKCS #8 PEM with an Ed25519 key, or a line with an ML-DSA-44 key.

    Raises BadKey or SettingsError.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(_POST_QUANTUM_FILE):
            return _post_quantum(raw, path, origin)
        key = load_pem_private_key(raw, password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"cannot read a private key from {path}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"the key in {path} is not an Ed25519 key")
    try:
        return FileKey(origin, key)
    except TlogError as error:
        raise SettingsError(f"origin: {error}") from error


def _post_quantum(raw: bytes, path: Path, origin: str) -> PostQuantumKey:
    try:
        cosigner = read_cosigner_key(raw.decode("ascii").removesuffix("\n"))
    except (TlogError, UnicodeDecodeError):
        raise BadKey(f"{path} is not a key file, or is damaged") from None
    if cosigner.verifier.kind is not CosignatureKind.ML_DSA_44:
        raise BadKey(f"the key in {path} is a witness's; a log's is of type ML-DSA-44")
    if cosigner.verifier.name != origin:
        raise SettingsError(
            f"signing_keys: {path} is a key of {cosigner.verifier.name}, and the log is {origin}"
        )
    return PostQuantumKey(cosigner, SystemClock())


def new_post_quantum_key(path: Path, origin: str) -> LogVerifier:
    """Write a new ML-DSA-44 key to a file that is not there; raises BadKey."""
    seed = os.urandom(SEED_BYTES)
    try:
        text = write_cosigner_key(origin, seed, CosignatureKind.ML_DSA_44)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadKey(f"cannot write {path}: {error.strerror or error}") from error
    return Cosigner.from_seed(origin, seed, CosignatureKind.ML_DSA_44).verifier
