"""A directive as its author hands it in: a folder that a lawyer can review.

`directive.toml` says who ordered it, from when to when, and where it is written; `rules.cedar` holds
the rules; `cases.yaml` the cases that they must decide as stated. The digest is over the exact bytes
of the first two: what was reviewed is what is applied.
"""

import hashlib
import re
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

from directive.findings import DocumentError, Place
from directive.scripts import mixed_words
from shared import plain_toml
from shared.model_errors import plainly

MANIFEST_FILE: Final = "directive.toml"
RULES_FILE: Final = "rules.cedar"
CASES_FILE: Final = "cases.yaml"

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{1,62}$"
PREFIX_PATTERN: Final = r"^[A-Z][A-Z0-9]{0,30}-$"

FILE_BYTES_MAX: Final = 1024 * 1024
"""No lawyer reviews more; a bound keeps a hostile file from filling the memory."""

_DIGEST_CONTEXT: Final = b"countersign/directive/v1\0"

_TOML_PLACE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds characters that cannot be printed")
    return value


Line = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
Party = Annotated[str, StringConstraints(pattern=r"^([A-Z0-9]{9}|[A-Z]{2}(-[A-Z0-9]{1,3})?)$")]


class Manifest(BaseModel):
    """What `directive.toml` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
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
    rule_prefix: Annotated[str, StringConstraints(pattern=PREFIX_PATTERN)]
    """With which the identifiers of this party's rules, and of no other's, begin."""
    effective_from: date
    """First day of legal effect (UTC)."""
    effective_until: date | None = None
    """First day without legal effect; absent while it has no end."""
    replaces: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] | None = None
    """The party's directive that ends when this one begins."""

    @model_validator(mode="after")
    def _in_force_at_all(self) -> Self:
        if self.effective_until is not None and self.effective_until <= self.effective_from:
            raise ValueError("effective_until must be later than effective_from")
        if self.replaces == self.name:
            raise ValueError(
                "a directive cannot take the place of itself: a new text has a new name"
            )
        return self


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
            "NAME_FOLDER",
            f"{folder.name}/{MANIFEST_FILE}",
            f"the name is {document.name!r}, the folder's {folder.name!r}: make one of them the other",
            manifest_place(document.manifest_text, "name"),
        )
    return document


def parse(label: str, manifest: bytes, rules: bytes) -> Document:
    """Reads the bytes of manifest and rules; raises DocumentError. Messages name it by the label."""
    file = f"{label}/{MANIFEST_FILE}"
    manifest_text = text_of(file, manifest)
    rules_text = text_of(f"{label}/{RULES_FILE}", rules)
    try:
        parsed = Manifest.model_validate(plain_toml.loads(manifest_text), strict=True)
    except ValidationError as error:
        problem, *others = error.errors()
        field = ".".join(str(part) for part in problem["loc"])
        place = manifest_place(manifest_text, field or "effective_until")
        more = f" ({len(others)} more)" if others else ""
        message = f"{field or 'dates'}: {plainly(problem['type'], problem['msg'])}{more}"
        raise DocumentError("MANIFEST", file, message, place) from error
    except (ValueError, RecursionError) as error:
        # Besides its own error, the parser lets through those of numbers and dates out of range.
        said = str(error)
        found = _TOML_PLACE.search(said)
        place = Place(int(found[1]), int(found[2])) if found else None
        message = f"not TOML: {_TOML_PLACE.sub('', said)}"
        raise DocumentError("MANIFEST", file, message, place) from error
    return Document(parsed, manifest_text, rules_text, digest(manifest, rules))


def manifest_place(text: str, field: str) -> Place | None:
    """Where the manifest gives a field; None when it does not."""
    given = re.compile(rf"\s*{re.escape(field)}\s*=")
    lines = enumerate(text.split("\n"), 1)
    return next((Place(number, 1) for number, line in lines if given.match(line)), None)


def digest(manifest: bytes, rules: bytes) -> bytes:
    """SHA-256 over both files, each with its length, so that no byte can move from one to the other."""
    sha256 = hashlib.sha256(_DIGEST_CONTEXT)
    for content in (manifest, rules):
        sha256.update(len(content).to_bytes(8, "big"))
        sha256.update(content)
    return sha256.digest()


def read_file(path: Path) -> bytes:
    """The bytes of a directive's file; raises DocumentError."""
    label = f"{path.parent.name}/{path.name}"
    try:
        if path.exists() and not path.is_file():
            # A pipe would be waited for without end.
            raise DocumentError("FILE_MISSING", label, "is no file")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise DocumentError("FILE_MISSING", label, f"cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise DocumentError("FILE_TOO_LARGE", label, f"larger than {FILE_BYTES_MAX} bytes")
    return content


def text_of(label: str, content: bytes) -> str:
    """The text; raises DocumentError for characters that would let it read otherwise than it is applied."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        line = before.count("\n") + 1
        place = Place(line, len(before) - (before.rfind("\n") + 1) + 1)
        message = f"not UTF-8: {error.reason} at byte {error.start}"
        raise DocumentError("NOT_UTF8", label, message, place) from error
    for number, line_text in enumerate(text.split("\n"), 1):
        if line_text.isprintable():
            continue
        for column, letter in enumerate(line_text, 1):
            if not letter.isprintable() and letter != "\t":
                message = f"hides the character U+{ord(letter):04X}"
                raise DocumentError("HIDDEN_CHARACTER", label, message, Place(number, column))
    for word in mixed_words(text):
        raise DocumentError("MIXED_SCRIPTS", label, str(word), word.place)
    return text
