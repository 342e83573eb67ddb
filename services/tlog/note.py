"""C2SP signed notes with Ed25519 keys (signature type 0x01).

A note is a text, an empty line, and signature lines. What is signed is the text with its last
line feed and without the empty line. Signatures of unknown keys are ignored; a signature that
bears a known key's name and id and does not verify sinks the whole note.
"""

import base64
import binascii
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import nacl.exceptions
import nacl.signing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tlog.errors import TlogError

ED25519 = 0x01

# The largest checkpoint in sight is about 20 kB: a log's line, sixteen witnesses with post-quantum
# signatures of 3 kB each would be 55 kB.
NOTE_BYTES_MAX = 128 * 1024

# The specification asks for at least 16; Go's verifier stops at 100 as well.
SIGNATURES_MAX = 100

KEY_NAME_BYTES_MAX = 255

_SIGNATURE_LINE = re.compile("\N{EM DASH} ([^ ]+) ([A-Za-z0-9+/=]+)")
_CONTROL_CHARACTER = re.compile("[\x00-\x09\x0b-\x1f\x7f]")
_KEY_ID_HEX = re.compile("[0-9a-f]{8}")
_KEY_ID_BYTES = 4
_ED25519_PUBLIC_BYTES = 32
_ED25519_SIGNATURE_BYTES = 64


def decode_base64(text: str, what: str) -> bytes:
    """Decode standard base64 in its one canonical form; `what` names it in the error."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TlogError(f"{what} is not base64") from None
    # Stray bits in the last digit would give one value several spellings.
    if base64.b64encode(raw).decode() != text:
        raise TlogError(f"{what} is not canonical base64")
    return raw


def check_key_name(name: str) -> None:
    """Refuse a key name that could be read in two ways within a signature line."""
    if not name or len(name.encode(errors="replace")) > KEY_NAME_BYTES_MAX:
        raise TlogError(f"a key name has 1 to {KEY_NAME_BYTES_MAX} bytes")
    # Of all white space, only the space itself counts as printable.
    if "+" in name or " " in name or not name.isprintable():
        raise TlogError("a key name has no space, plus sign or control character")


@dataclass(frozen=True)
class NoteSignature:
    """One signature line, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes


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
        parts = vkey.split("+", 2)
        if len(parts) != 3:
            raise TlogError("a verifier key is name+key id+key")
        name, key_id_hex, encoded = parts
        if not _KEY_ID_HEX.fullmatch(key_id_hex):
            raise TlogError("a verifier key's id is eight lower-case hex digits")
        raw = decode_base64(encoded, "the verifier key")
        if not raw or raw[0] != ED25519:
            raise TlogError("the verifier key is not an Ed25519 key")
        verifier = cls(name, raw[1:])
        if verifier.key_id.hex() != key_id_hex:
            raise TlogError("the verifier key's id does not belong to its name and key")
        return verifier

    @functools.cached_property
    def key_id(self) -> bytes:
        """Four bytes that say which key of this name signed."""
        kind = bytes([ED25519])
        return sha256(self.name.encode() + b"\n" + kind + self.public_key).digest()[:_KEY_ID_BYTES]

    @functools.cached_property
    def _key(self) -> nacl.signing.VerifyKey:
        return nacl.signing.VerifyKey(self.public_key)

    @property
    def vkey(self) -> str:
        """The text form, as `parse` reads it."""
        encoded = base64.b64encode(bytes([ED25519]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verify(self, text: str, signature: bytes) -> None:
        """Raise TlogError unless this key signed this text."""
        if len(signature) != _ED25519_SIGNATURE_BYTES:
            raise TlogError(f"the signature of {self.name} has the wrong length")
        try:
            self._key.verify(text.encode(), signature)
        except nacl.exceptions.CryptoError:
            raise TlogError(f"the signature of {self.name} does not verify") from None


class Signer:
    """A private key with the name under which it signs."""

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.verifier = Verifier(name, private_key.public_key().public_bytes_raw())
        self._signer = nacl.signing.SigningKey(private_key.private_bytes_raw())
        self._line_start = f"\N{EM DASH} {name} "
        self._key_id = self.verifier.key_id

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> "Signer":
        """Make a signer from the 32 secret bytes of RFC 8032."""
        if len(seed) != _ED25519_PUBLIC_BYTES:
            raise TlogError("an Ed25519 seed has 32 bytes")
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, text: str) -> str:
        """Give the note of this text with this one signature."""
        check_text(text)
        signature = self._signer.sign(text.encode()).signature
        encoded = base64.b64encode(self._key_id + signature).decode()
        return f"{text}\n{self._line_start}{encoded}\n"


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
        if not lines.endswith("\n"):
            raise TlogError("the note does not end in a line feed")
        signature_lines = lines[:-1].split("\n")
        if len(signature_lines) > SIGNATURES_MAX:
            raise TlogError(f"the note has more than {SIGNATURES_MAX} signatures")
        return cls(text + "\n", tuple(_parse_signature(line) for line in signature_lines))

    def verify(self, verifiers: Iterable[Verifier]) -> tuple[Verifier, ...]:
        """Give the keys that signed; raise TlogError if none did or one of theirs is false."""
        known = {(one.name, one.key_id): one for one in verifiers}
        signed: dict[tuple[str, bytes], Verifier] = {}
        for line in self.signatures:
            verifier = known.get((line.name, line.key_id))
            if verifier is None:
                continue
            verifier.verify(self.text, line.signature)
            signed[line.name, line.key_id] = verifier
        if not signed:
            raise TlogError("no known key signed the note")
        return tuple(signed.values())


def decode_text(raw: str | bytes) -> str:
    """Read UTF-8 without control characters other than the line feed, of bounded length."""
    if len(raw) > NOTE_BYTES_MAX:
        raise TlogError(f"the note is longer than {NOTE_BYTES_MAX} bytes")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        text.encode()
    except UnicodeError:
        raise TlogError("the note is not UTF-8") from None
    if _CONTROL_CHARACTER.search(text):
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
