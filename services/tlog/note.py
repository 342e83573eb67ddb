"""C2SP signed notes, and Ed25519 keys that sign them (signature type 0x01).

A note is a text, an empty line, and signature lines. What is signed is the text with its last
line feed and without the empty line. Signatures of unknown keys are ignored; a signature that
bears a known key's name and id and does not verify sinks the whole note.
"""

import base64
import functools
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, Self, TypeVar

import nacl.exceptions
import nacl.signing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tlog.errors import FalseSignature, TlogError, UnknownSigner

ED25519 = 0x01

# A log and 32 witnesses, each with an Ed25519 and a post-quantum signature, come to 115 kB; Go's
# verifier stops at 1 MB.
NOTE_BYTES_MAX = 256 * 1024

# The specification asks for at least 16; Go's verifier stops at 100 as well.
SIGNATURES_MAX = 100

KEY_NAME_BYTES_MAX = 255

_SIGNATURE_LINE = re.compile("\N{EM DASH} ([^ ]+) ([A-Za-z0-9+/=]+)")
_CONTROL_CHARACTERS = bytes([*range(0x0A), *range(0x0B, 0x20), 0x7F])
_KEY_ID_HEX = re.compile("[0-9a-f]{8}")
_KEY_ID_BYTES = 4
_ED25519_PUBLIC_BYTES = 32
_ED25519_SIGNATURE_BYTES = 64


def decode_base64(text: str, what: str) -> bytes:
    """Decode standard base64 in its one canonical form; `what` names it in the error."""
    try:
        raw = a2b_base64(text, strict_mode=True)
    except ValueError:
        raise TlogError(f"{what} is not base64") from None
    # Stray bits in the last digit would give one value several spellings.
    if b2a_base64(raw, newline=False).decode() != text:
        raise TlogError(f"{what} is not canonical base64")
    return raw


def check_key_name(name: str) -> None:
    """Refuse a key name that could be read in two ways within a signature line."""
    if not name or len(name.encode(errors="replace")) > KEY_NAME_BYTES_MAX:
        raise TlogError(f"a key name has 1 to {KEY_NAME_BYTES_MAX} bytes")
    # Of all white space, only the space itself counts as printable.
    if "+" in name or " " in name or not name.isprintable():
        raise TlogError("a key name has no space, plus sign or control character")


def key_id_of(name: str, kind: int, public_key: bytes) -> bytes:
    """Four bytes that say which key of this name signed, and with which type of signature."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:_KEY_ID_BYTES]


def write_vkey(name: str, kind: int, public_key: bytes) -> str:
    """Write a verifier key: name+hex key id+base64 of type and key."""
    encoded = base64.b64encode(bytes([kind]) + public_key).decode()
    return f"{name}+{key_id_of(name, kind, public_key).hex()}+{encoded}"


def read_vkey(vkey: str) -> tuple[str, int, bytes]:
    """Read a verifier key of any type; give name, type and public key."""
    # A name has no plus sign, and base64 may have some.
    parts = vkey.split("+", 2)
    if len(parts) != 3:
        raise TlogError("a verifier key is name+key id+key")
    name, key_id_hex, encoded = parts
    check_key_name(name)
    if not _KEY_ID_HEX.fullmatch(key_id_hex):
        raise TlogError("a verifier key's id is eight lower-case hex digits")
    raw = decode_base64(encoded, "the verifier key")
    if not raw:
        raise TlogError("the verifier key is empty")
    kind, public_key = raw[0], raw[1:]
    if key_id_of(name, kind, public_key).hex() != key_id_hex:
        raise TlogError("the verifier key's id does not belong to its name and key")
    return name, kind, public_key


def write_signature(name: str, key_id: bytes, signature: bytes) -> str:
    """Write a signature line with its line feed."""
    return f"\N{EM DASH} {name} {base64.b64encode(key_id + signature).decode()}\n"


class NoteSigner(Protocol):
    """Whatever signs notes under a name: a key in a file, in a hardware module, of any type."""

    @property
    def name(self) -> str:
        """The name under which it signs."""

    @property
    def vkey(self) -> str:
        """The verifier key that others need."""

    def sign(self, text: str) -> str:
        """Give one signature line for this text, with its line feed."""


class NoteVerifier(Hashable, Protocol):
    """A public key of any type, with the name under which it signs."""

    @property
    def name(self) -> str:
        """The name under which it signs."""

    @property
    def key_id(self) -> bytes:
        """Four bytes that say which key of this name signed."""

    def verify(self, text: str, signature: bytes) -> object:
        """Raise TlogError unless this key signed this text."""


AnyVerifier = TypeVar("AnyVerifier", bound=NoteVerifier)


@dataclass(frozen=True)
class NoteSignature:
    """One signature line, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line with its line feed, as it was read: there is no other spelling of it."""
        return write_signature(self.name, self.key_id, self.signature)


@dataclass(frozen=True)
class Verifier:
    """A public key with the name under which it signs."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.public_key) != _ED25519_PUBLIC_BYTES:
            raise TlogError("an Ed25519 public key has 32 bytes")

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read a verifier key text: name+hex key id+base64 of type and key."""
        name, kind, public_key = read_vkey(vkey)
        if kind != ED25519:
            raise TlogError("the verifier key is not an Ed25519 key")
        return cls(name, public_key)

    @functools.cached_property
    def key_id(self) -> bytes:
        """Four bytes that say which key of this name signed."""
        return key_id_of(self.name, ED25519, self.public_key)

    @functools.cached_property
    def _key(self) -> nacl.signing.VerifyKey:
        return nacl.signing.VerifyKey(self.public_key)

    @property
    def vkey(self) -> str:
        """The text form, as `parse` reads it."""
        return write_vkey(self.name, ED25519, self.public_key)

    def verify(self, text: str, signature: bytes) -> None:
        """Raise TlogError unless this key signed this text."""
        if len(signature) != _ED25519_SIGNATURE_BYTES:
            raise FalseSignature(self.name, self.key_id, "has the wrong length")
        try:
            self._key.verify(text.encode(), signature)
        except nacl.exceptions.CryptoError:
            raise FalseSignature(self.name, self.key_id, "does not verify") from None


class Signer:
    """A private key with the name under which it signs."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.verifier = Verifier(name, private_key.public_key().public_bytes_raw())
        self._signer = nacl.signing.SigningKey(private_key.private_bytes_raw())

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Self:
        """Make a signer from the 32 secret bytes of RFC 8032."""
        if len(seed) != _ED25519_PUBLIC_BYTES:
            raise TlogError("an Ed25519 seed has 32 bytes")
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def name(self) -> str:
        """The name under which it signs."""
        return self.verifier.name

    @property
    def vkey(self) -> str:
        """The verifier key that others need."""
        return self.verifier.vkey

    def sign(self, text: str) -> str:
        """Give one signature line for this text, with its line feed."""
        check_text(text)
        signature = self._signer.sign(text.encode()).signature
        return write_signature(self.name, self.verifier.key_id, signature)


def sign_note(text: str, signers: Sequence[NoteSigner]) -> str:
    """Give the note of this text with one signature line by each signer."""
    if not signers:
        raise TlogError("a note has at least one signature")
    check_text(text)
    return f"{text}\n{''.join([one.sign(text) for one in signers])}"


@dataclass(frozen=True)
class UnverifiedNote:
    """A note taken apart. Nothing in it is known to be true yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, note: str | bytes) -> "UnverifiedNote":
        """Take a note apart, refusing everything that is not exactly a note."""
        whole = decode_text(note)
        text, separator, lines = whole.rpartition("\n\n")
        if not separator:
            raise TlogError("the note has no empty line before its signatures")
        return cls(text + "\n", parse_signatures(lines))

    def verify(self, verifiers: Iterable[AnyVerifier]) -> tuple[AnyVerifier, ...]:
        """Give the keys that signed; raise TlogError if none did or one of theirs is false."""
        known = {(one.name, one.key_id): one for one in verifiers}
        signed: dict[tuple[str, bytes], AnyVerifier] = {}
        for line in self.signatures:
            verifier = known.get((line.name, line.key_id))
            if verifier is None:
                continue
            verifier.verify(self.text, line.signature)
            signed[line.name, line.key_id] = verifier
        if not signed:
            raise UnknownSigner("no known key signed the note")
        return tuple(signed.values())


def parse_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Read signature lines, each with its line feed, as they end a note or come from a witness."""
    if not lines.endswith("\n"):
        raise TlogError("the note does not end in a line feed")
    signature_lines = lines[:-1].split("\n")
    if len(signature_lines) > SIGNATURES_MAX:
        raise TlogError(f"the note has more than {SIGNATURES_MAX} signatures")
    return tuple(_parse_signature(line) for line in signature_lines)


def decode_text(raw: str | bytes) -> str:
    """Read UTF-8 without control characters other than the line feed, of bounded length."""
    if len(raw) > NOTE_BYTES_MAX:
        raise TlogError(f"the note is longer than {NOTE_BYTES_MAX} bytes")
    try:
        text, encoded = (raw.decode(), raw) if isinstance(raw, bytes) else (raw, raw.encode())
    except UnicodeError:
        raise TlogError("the note is not UTF-8") from None
    # In UTF-8 such a byte is never part of another character, and bytes are looked through much faster.
    if len(encoded.translate(None, _CONTROL_CHARACTERS)) != len(encoded):
        raise TlogError("the note has a control character")
    return text


def check_text(text: str) -> None:
    """Refuse a text that could not be told from the signatures after it."""
    decode_text(text)
    if not text.endswith("\n"):
        raise TlogError("a note's text ends in a line feed")


def _parse_signature(line: str) -> NoteSignature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None:
        raise TlogError("a signature line is a dash, a key name and base64")
    name, encoded = match.groups()
    check_key_name(name)
    raw = decode_base64(encoded, "a signature")
    if len(raw) <= _KEY_ID_BYTES:
        raise TlogError("a signature is too short")
    return NoteSignature(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])
