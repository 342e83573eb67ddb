"""Who keeps the outermost keys of the openings: a provider that wraps other keys and never shows its own.

A provider has versions: the newest wraps, an older one unwraps what it wrapped until it is destroyed. The
default keeps each version in a file of its own, so that destroying it is removing a file. A hardware
module or a key service would implement the same protocol.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared import whole_files
from shared.errors import NotReady

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
"""Random: a key wraps far fewer than the 2^32 that make a repeated nonce a risk."""

_WRAP_CONTEXT: Final = b"countersign/wrapped-key/v1\0"
_REVEALED: Final = "countersign-opening-keys/v1"
_REVEALED_KEY = re.compile(r"v([1-9][0-9]{0,8}) ([0-9a-f]{64})")
_VERSIONS_MAX: Final = 1000
"""Far more rotations than are kept."""
_FILE_NAME = re.compile(r"v([1-9][0-9]{0,8})\.key")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def key_missing(message: str) -> NotReady:
    """A key is not there, or is not the one that it should be."""
    return NotReady("OPENING_KEY_MISSING", message)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key as it may be stored: only the provider's version that wrapped it gives it back."""

    version: int
    sealed: bytes


class KeyProvider(Protocol):
    """Keeps the outermost keys."""

    @property
    def version(self) -> int:
        """Give the version that wraps now."""

    def newest(self) -> int:
        """Find out which version wraps now, also when another process has begun it."""

    def versions(self) -> list[int]:
        """Give every version that can still unwrap, ascending."""

    def wrap(self, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap a key; it is given back only to who names the same `bound_to`."""

    def unwrap(self, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Give a key back; raises NotReady."""

    def rotate(self) -> int:
        """Begin a new version, which wraps from now on, and give it."""

    def destroy(self, version: int) -> None:
        """Destroy an older version. What it wrapped is lost for good."""


def seal_with(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    """Encrypt (AES-256-GCM) under a key that encrypts more than once."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)


def open_with(key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Decrypt what `seal_with` made; raises NotReady for another key or another binding."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError):
        raise key_missing("a wrapped key is damaged, or was wrapped by another key") from None


class FileKeyProvider:
    """A folder with one file for each version, which only the ledger's user may read.

    Raises NotReady for a folder or file that others can read, or that holds no key.
    """

    def __init__(self, folder: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        self._folder = folder
        self._random = random
        self._keys = _read_keys(folder)

    @classmethod
    def create(cls, folder: Path) -> "FileKeyProvider":
        """Make the folder with a first version, unless there is one already."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(_FILE_NAME.fullmatch(one.name) for one in folder.iterdir()):
            _write_key(folder / "v1.key", os.urandom(KEY_BYTES))
        return cls(folder)

    @property
    def version(self) -> int:
        """Give the version that wraps now."""
        return max(self._keys)

    def newest(self) -> int:
        """Read the folder again, and give the version that wraps now."""
        self._keys = _read_keys(self._folder)
        return self.version

    def versions(self) -> list[int]:
        """Give every version whose file is there, ascending."""
        return sorted(self._keys)

    def wrap(self, key: bytes, bound_to: bytes) -> WrappedKey:
        """Wrap a key under the newest version that is there now."""
        # Another process may have rotated: under a version that it destroyed, the key would be lost.
        self._keys = _read_keys(self._folder)
        version = self.version
        return WrappedKey(version, seal_with(self._keys[version], key, _WRAP_CONTEXT + bound_to))

    def unwrap(self, wrapped: WrappedKey, bound_to: bytes) -> bytes:
        """Give a key back; raises NotReady."""
        key = self._keys.get(wrapped.version)
        if key is None:
            # Another process may have begun it since.
            self._keys = _read_keys(self._folder)
            key = self._keys.get(wrapped.version)
        if key is None:
            raise key_missing(
                f"version {wrapped.version} of the opening keys is not in {self._folder}"
            )
        return _unwrapped(key, wrapped, bound_to)

    def rotate(self) -> int:
        """Write a new version."""
        version = self.version + 1
        _write_key(self._folder / f"v{version}.key", self._random(KEY_BYTES))
        self._keys = _read_keys(self._folder)
        return version

    def destroy(self, version: int) -> None:
        """Overwrite and remove the file of an older version."""
        assert version < self.version, "the newest version is in use"
        _destroy_key(self._folder / f"v{version}.key")
        self._keys = _read_keys(self._folder)


def mounted_keys(source: Path) -> dict[int, bytes]:
    """Read every version from a folder that others may read. Raises NotReady, OSError."""
    named = [(_FILE_NAME.fullmatch(one.name), one) for one in source.iterdir()]
    return {int(match[1]): _read_key(one) for match, one in named if match}


def revealed_keys(folder: Path) -> str:
    """Give every version as `read_revealed` reads it. What it gives is secret. Raises NotReady."""
    keys = _read_keys(folder)
    lines = [f"v{version} {key.hex()}\n" for version, key in sorted(keys.items())]
    return f"{_REVEALED} {len(lines)}\n{''.join(lines)}"


def read_revealed(text: str) -> dict[int, bytes]:
    """Read what `revealed_keys` gave, whole; raises NotReady, which quotes nothing of it."""
    head, *lines = text.splitlines()[: _VERSIONS_MAX + 1] or [""]
    found = [_REVEALED_KEY.fullmatch(line) for line in lines]
    keys = {int(one[1]): bytes.fromhex(one[2]) for one in found if one}
    if head != f"{_REVEALED} {len(lines)}" or len(keys) != len(lines):
        raise NotReady("OPENING_KEYS_UNREADABLE", "what was given are no opening keys, or not all")
    return keys


def unwrap_with(keys: Mapping[int, bytes], wrapped: WrappedKey, bound_to: bytes) -> bytes:
    """Give a key back as a provider with these versions would; raises NotReady."""
    key = keys.get(wrapped.version)
    if key is None:
        raise key_missing(f"version {wrapped.version} is not among the keys that were given")
    return _unwrapped(key, wrapped, bound_to)


def would_lose(keys: Mapping[int, bytes], folder: Path) -> bool:
    """Say whether `place_keys` would take away or replace what is in the folder. Raises OSError."""
    if not folder.exists():
        return False
    there = [(_FILE_NAME.fullmatch(one.name), one) for one in folder.iterdir()]
    return any(
        one.read_bytes().strip() != keys.get(int(match[1]), b"").hex().encode()
        for match, one in there
        if match
    )


def place_keys(keys: Mapping[int, bytes], folder: Path) -> None:
    """Have the folder hold these versions and no other. Raises NotReady, OSError."""
    if not keys:
        raise NotReady("OPENING_KEYS_UNREADABLE", "no key was given (v1.key, v2.key, …)")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for version, key in keys.items():
        _write_key(folder / f"v{version}.key", key)
    for one in folder.iterdir():
        if (match := _FILE_NAME.fullmatch(one.name)) and int(match[1]) not in keys:
            _destroy_key(one)
    _read_keys(folder)


def _read_keys(folder: Path) -> dict[int, bytes]:
    try:
        _require_private(folder)
        keys = {}
        for path in folder.iterdir():
            if match := _FILE_NAME.fullmatch(path.name):
                _require_private(path)
                keys[int(match[1])] = _read_key(path)
    except OSError as error:
        raise NotReady("OPENING_KEYS_UNREADABLE", f"{folder}: {error}") from error
    if not keys:
        raise NotReady("OPENING_KEYS_UNREADABLE", f"{folder} holds no key (v1.key, v2.key, …)")
    return keys


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise NotReady(
            "OPENING_KEYS_UNREADABLE", f"{path} does not hold {KEY_BYTES} bytes in hexadecimal"
        )
    return key


def _require_private(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & _OTHERS:
        raise NotReady(
            "OPENING_KEYS_EXPOSED",
            f"{path} can be reached by others (mode {stat.S_IMODE(mode):04o}); "
            "only the ledger's own user may: chmod go= it, and rotate the keys if somebody did",
        )


def _unwrapped(key: bytes, wrapped: WrappedKey, bound_to: bytes) -> bytes:
    return open_with(key, wrapped.sealed, _WRAP_CONTEXT + bound_to)


def _destroy_key(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    whole_files.sync_folder(path.parent)


def _write_key(path: Path, key: bytes) -> None:
    # Whole or not at all, also after a power cut: a half-written key would be taken for damage.
    whole_files.put(path, key.hex().encode() + b"\n", sync=True, mode=0o600)
