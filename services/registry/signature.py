"""Who signed a registry document: `registry.sig` beside it, a C2SP signed note.

Its text is the statement of RegistryStatement (event.proto): the log in which it is to count, owner, serial
number, the digest of `agency.toml` and that of the commitments to all officers. It is public and says nothing
that could be guessed. What was signed for one installation cannot be handed in at another.

An owner signs for itself only: what counts are the keys in the newest document that it published, and for the
first one those that the trust roots have for it.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from countersign.ledger.v1.event_pb2 import RegistryStatement
from registry.commitments import Commitments, Committed, commit
from registry.document import Document, read_file
from registry.findings import refused
from tlog.errors import FalseSignature, TlogError, UnknownSigner
from tlog.note import NOTE_BYTES_MAX, NoteSigner, UnverifiedNote, Verifier, sign_note

SIGNATURE_FILE: Final = "registry.sig"
SERIAL_MAX: Final = 2**63 - 1

ORIGIN: Final = re.compile(r"[^\s+]{1,255}")
"""The name of a log."""

_CONTEXT_1: Final = "countersign/registry-signature/v1"
_CONTEXT_2: Final = "countersign/registry-signature/v2"
_STATEMENT: Final = re.compile(
    rf"(?:{_CONTEXT_1}\n|{_CONTEXT_2}\nlog (?P<log>{ORIGIN.pattern})\n)"
    r"owner (?P<owner>[A-Z0-9-]+)\nserial (?P<serial>[1-9][0-9]{0,18})\n"
    r"agency\.toml sha256:(?P<document>[0-9a-f]{64})\n"
    r"officers (?P<count>0|[1-9][0-9]{0,9}) sha256:(?P<officers>[0-9a-f]{64})\n"
)


@dataclass(frozen=True)
class Statement:
    """What is signed."""

    owner: str
    serial: int
    document_sha256: bytes
    officers: int
    officers_sha256: bytes
    log: str = ""
    """The origin of the log that it is for; empty in version 1."""

    @property
    def text(self) -> str:
        """The note's text."""
        head = f"{_CONTEXT_2}\nlog {self.log}\n" if self.log else f"{_CONTEXT_1}\n"
        return (
            f"{head}owner {self.owner}\nserial {self.serial}\n"
            f"agency.toml sha256:{self.document_sha256.hex()}\n"
            f"officers {self.officers} sha256:{self.officers_sha256.hex()}\n"
        )

    @cached_property
    def sha256(self) -> bytes:
        """Digest of the text: of all that the owner says."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def as_proto(self) -> RegistryStatement:
        """As entries and answers bear it, without a signature."""
        return RegistryStatement(
            owner=self.owner,
            serial=self.serial,
            document_sha256=self.document_sha256,
            officers=self.officers,
            officers_sha256=self.officers_sha256,
            log_origin=self.log,
        )

    @classmethod
    def of(cls, said: RegistryStatement) -> "Statement":
        """What an entry or answer bears, whoever signed it."""
        return cls(
            said.owner,
            said.serial,
            said.document_sha256,
            said.officers,
            said.officers_sha256,
            said.log_origin,
        )

    @classmethod
    def parse(cls, text: str) -> "Statement | None":
        """Reads a text; None when it is no statement."""
        found = _STATEMENT.fullmatch(text)
        if found is None or int(found["serial"]) > SERIAL_MAX:
            return None
        return cls(
            found["owner"],
            int(found["serial"]),
            bytes.fromhex(found["document"]),
            int(found["count"]),
            bytes.fromhex(found["officers"]),
            found["log"] or "",
        )


@dataclass(frozen=True)
class Signed:
    """A document with its owner's signature: ready to be published."""

    document: Document
    officers: tuple[Committed, ...]
    statement: Statement
    key_id: str
    signature: bytes

    @property
    def as_proto(self) -> RegistryStatement:
        """The statement as entries bear it."""
        said = self.statement.as_proto
        said.key_id, said.signature = self.key_id, self.signature
        return said


def parse_keys(registered: Iterable[str]) -> tuple[Verifier, ...]:
    """Reads verifier keys; raises TlogError."""
    return tuple(Verifier.parse(vkey) for vkey in registered)


def statement(
    document: Document, officers: Iterable[Committed], serial: int, log: str = ""
) -> Statement:
    """What the owner of a document signs, for the log of this origin."""
    commitments = Commitments().changed((), [one.commitment for one in officers])
    return Statement(
        document.owner,
        serial,
        hashlib.sha256(document.public_bytes).digest(),
        len(commitments),
        commitments.sha256,
        log,
    )


def sign(document: Document, secret: bytes, serial: int, signer: NoteSigner, log: str) -> str:
    """The note for `registry.sig`, for the log of this origin; raises RegistryRefused."""
    if not ORIGIN.fullmatch(log):
        raise refused("LOG", SIGNATURE_FILE, f"{log!r} is no name of a log")
    if not 1 <= serial <= SERIAL_MAX:
        raise refused("SERIAL", SIGNATURE_FILE, f"a serial number is 1 to {SERIAL_MAX}")
    officers = commit(secret, document.owner, document.officers)
    return sign_note(statement(document, officers, serial, log).text, [signer])


def read_statement(folder: Path) -> Statement | None:
    """What was signed last, not known to be true; None when nothing was. Raises RegistryRefused."""
    path = folder / SIGNATURE_FILE
    if not path.exists():
        return None
    return _parsed(f"{folder.name}/{SIGNATURE_FILE}", read_file(path, NOTE_BYTES_MAX))[1]


def check(
    label: str,
    note_bytes: bytes,
    document: Document,
    secret: bytes,
    keys: Iterable[Verifier],
    others: Mapping[str, tuple[Verifier, ...]] | None = None,
) -> Signed:
    """The signed document; raises RegistryRefused. `others` are named when one of them signed instead."""
    file, keys = f"{label}/{SIGNATURE_FILE}", tuple(keys)
    if not keys:
        raise refused("SIGNER_UNKNOWN", file, f"{document.owner} has no registered key")
    note, said = _parsed(file, note_bytes)
    try:
        # The signature before the text: what nobody known has signed accuses no file.
        signer = note.verify(keys)[0]
    except UnknownSigner:
        message = (
            f"{_signed_by(note, others or {})}, and by no key that {document.owner} registered"
        )
        raise refused("SIGNATURE_OTHER_PARTY", file, message) from None
    except FalseSignature as error:
        raise refused("SIGNATURE_FALSE", file, str(error)) from error
    officers = commit(secret, document.owner, document.officers)
    expected = statement(document, officers, said.serial, said.log)
    if said != expected:
        changed = set(expected.text.splitlines()) - set(note.text.splitlines())
        what = ", ".join(sorted(line.split(" ")[0] for line in changed))
        raise refused("SIGNATURE_OF_OTHER_BYTES", file, f"signs something else: {what}")
    raw = next(
        line.signature
        for line in note.signatures
        if (line.name, line.key_id) == (signer.name, signer.key_id)
    )
    return Signed(document, officers, said, key_name(signer), raw)


def key_name(key: Verifier) -> str:
    """How entries name a key."""
    return f"{key.name}+{key.key_id.hex()}"


def check_statement(said: RegistryStatement, keys: Iterable[Verifier]) -> Statement:
    """The statement of an entry, if its owner signed it with one of the keys; raises RegistryRefused."""
    file = f"{said.owner}: statement"
    parsed = Statement.of(said)
    if Statement.parse(parsed.text) != parsed:
        raise refused("STATEMENT", file, "is not one that can be signed")
    signer = next((key for key in keys if key_name(key) == said.key_id), None)
    if signer is None:
        message = f"is signed by {said.key_id!r}, which is no key that {said.owner} registered"
        raise refused("SIGNATURE_OTHER_PARTY", file, message)
    try:
        signer.verify(parsed.text, said.signature)
    except TlogError as error:
        raise refused("SIGNATURE_FALSE", file, str(error)) from error
    return parsed


def _parsed(file: str, note_bytes: bytes) -> tuple[UnverifiedNote, Statement]:
    try:
        note = UnverifiedNote.parse(note_bytes)
    except TlogError as error:
        raise refused("SIGNATURE", file, f"is no signed note: {error}") from error
    said = Statement.parse(note.text)
    if said is None:
        raise refused("SIGNATURE", file, "is a note about something else")
    return note, said


def _signed_by(note: UnverifiedNote, others: Mapping[str, tuple[Verifier, ...]]) -> str:
    owners = {(key.name, key.key_id): owner for owner, keys in others.items() for key in keys}
    named = {
        f"{line.name} ({owners.get((line.name, line.key_id), 'registered by nobody')})"
        for line in note.signatures
    }
    return f"is signed by {', '.join(sorted(named))}"
