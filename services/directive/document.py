"""A directive as its author hands it in: a folder that a lawyer can review.

`directive.toml` says who ordered it, from when to when, and where it is written; `rules.cedar` holds
the rules; `cases.yaml` the cases that they must decide as stated. The digest is over the exact bytes
of the first two: what was reviewed is what is applied.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

MANIFEST_FILE: Final = "directive.toml"
RULES_FILE: Final = "rules.cedar"
CASES_FILE: Final = "cases.yaml"

FILE_BYTES_MAX: Final = 1024 * 1024
"""No lawyer reviews more; a bound keeps a hostile file from filling the memory."""

_DIGEST_CONTEXT: Final = b"countersign/directive/v1\0"


class DocumentError(Exception):
    """A directive's file is missing, too large or not what it should be; the message names it."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return value


Line = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
Party = Annotated[str, StringConstraints(pattern=r"^([A-Z0-9]{9}|[A-Z]{2}(-[A-Z0-9]{1,3})?)$")]


class Manifest(BaseModel):
    """What `directive.toml` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")]
    """The name of its folder."""
    party: Party
    """Who ordered it: an agency's ORI, or a jurisdiction's ISO 3166-2 code."""
    title: Line
    source: Line
    """The document that it encodes."""
    source_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the source document, where one is on file."""
    caution: Line | None = None
    """What a reader must know before relying on it."""
    author: Line
    """Who wrote the rules down."""
    vocabulary: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.-]{1,32}$")]
    """The version of the vocabulary that it was written against."""
    rule_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]{0,30}-$")]
    """With which the identifiers of this party's rules, and of no other's, begin."""
    effective_from: date
    """First day of legal effect (UTC)."""
    effective_until: date | None = None
    """First day without legal effect; absent while it has no end."""

    @model_validator(mode="after")
    def _in_force_at_all(self) -> Self:
        if self.effective_until is not None and self.effective_until <= self.effective_from:
            raise ValueError("effective_until must be later than effective_from")
        return self

    def in_force(self, day: date) -> bool:
        """Whether it has legal effect on that day."""
        return self.effective_from <= day and (
            self.effective_until is None or day < self.effective_until
        )


@dataclass(frozen=True)
class Document:
    """A directive's manifest and the exact text of its files."""

    manifest: Manifest
    manifest_text: str
    rules_text: str
    sha256: bytes

    @property
    def name(self) -> str:
        """Its name."""
        return self.manifest.name

    @property
    def rules_file(self) -> str:
        """How messages name its rules."""
        return f"{self.name}/{RULES_FILE}"


def read(folder: Path) -> Document:
    """Reads a folder; raises DocumentError."""
    document = parse(folder.name, read_file(folder / MANIFEST_FILE), read_file(folder / RULES_FILE))
    if document.name != folder.name:
        raise DocumentError(
            f"{folder.name}/{MANIFEST_FILE}: the name is {document.name!r}, the folder's is another"
        )
    return document


def parse(label: str, manifest: bytes, rules: bytes) -> Document:
    """Reads the bytes of manifest and rules; raises DocumentError. Messages name it by the label."""
    manifest_text = _text(f"{label}/{MANIFEST_FILE}", manifest)
    rules_text = _text(f"{label}/{RULES_FILE}", rules)
    try:
        parsed = Manifest.model_validate(tomllib.loads(manifest_text), strict=True)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(f"{label}/{MANIFEST_FILE}: not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'dates'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise DocumentError(f"{label}/{MANIFEST_FILE}: {problems}") from error
    return Document(parsed, manifest_text, rules_text, digest(manifest, rules))


def digest(manifest: bytes, rules: bytes) -> bytes:
    """SHA-256 over both files, each with its length, so that no byte can move from one to the other."""
    sha256 = hashlib.sha256(_DIGEST_CONTEXT)
    for content in (manifest, rules):
        sha256.update(len(content).to_bytes(8, "big"))
        sha256.update(content)
    return sha256.digest()


def read_file(path: Path) -> bytes:
    """The bytes of a directive's file; raises DocumentError."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise DocumentError(f"{path.parent.name}/{path.name}: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise DocumentError(f"{path.parent.name}/{path.name}: larger than {FILE_BYTES_MAX} bytes")
    return content


def _text(label: str, content: bytes) -> str:
    """The text; characters that would let it read otherwise than it is applied are refused."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{label}: not UTF-8: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(text.split("\n"), 1):
        hidden = next((c for c in line if not c.isprintable() and c not in "\t"), None)
        if hidden is not None:
            raise DocumentError(f"{label}: line {number} hides the character U+{ord(hidden):04X}")
    return text
