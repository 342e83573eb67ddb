"""What an owner registers: a folder with a public and a private file.

`agency.toml` is public: what the owner is, operates, owns and keeps, and its public keys. `officers.toml`
is private: its officers and how they stand. A jurisdiction owns a folder too, with offences and oversight
bodies and no officers. Which names of others it may use is looked at where the others are known
(`registry.names`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from directive.document import text_of
from directive.findings import DirectiveRefused, Finding, Place
from registry.findings import FINDINGS_MAX, RegistryRefused, refused
from shared import plain_toml
from shared.model_errors import plainly
from shared.registry import (
    Agency,
    GalleryClassName,
    GalleryOriginName,
    IdentityProvider,
    Jurisdiction,
    Name,
    NibrsCode,
    OfficerId,
    Ori,
    OversightBody,
    Party,
    Standing,
    Statute,
)
from tlog.errors import TlogError
from tlog.note import Verifier

AGENCY_FILE: Final = "agency.toml"
OFFICERS_FILE: Final = "officers.toml"

AGENCY_BYTES_MAX: Final = 1024 * 1024
"""A large agency's galleries and lists take some ten kilobytes."""
OFFICERS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Twice what the largest police department there is needs; keeps a wrong path from being read into memory."""
PROVIDER_KEYS_MAX: Final = 16
KEYS_MAX: Final = 16

_TOML_PLACE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\]#]+?)\s*\]")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_.\"'-]+?)\s*=")
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""What a JSON Web Key has only when it is a secret (RFC 7518)."""

_Model = TypeVar("_Model", bound=BaseModel)


def _vkey(value: str) -> str:
    try:
        Verifier.parse(value)
    except TlogError as error:
        raise ValueError(str(error)) from error
    return value


def _public(provider: IdentityProvider) -> IdentityProvider:
    keys = provider.jwks.get("keys")
    if not isinstance(keys, tuple | list) or not 1 <= len(keys) <= PROVIDER_KEYS_MAX:
        raise ValueError(f"jwks has no list of 1 to {PROVIDER_KEYS_MAX} keys")
    for key in keys:
        if not isinstance(key, Mapping):
            raise ValueError("a key of jwks is no table")  # noqa: TRY004  # pydantic reports it
        if _PRIVATE_MEMBERS & key.keys():
            raise ValueError("jwks holds a private or secret key: publish only its public part")
    return provider


VerifierKeys = Annotated[
    tuple[Annotated[str, AfterValidator(_vkey)], ...], Field(max_length=KEYS_MAX)
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Keys(_Strict):
    """The public keys that the owner registers."""

    registry: VerifierKeys = Field(min_length=1)
    """With one of these the next version of this document is signed."""
    directives: VerifierKeys = ()
    """With these its directives are signed."""
    identity_provider: Annotated[IdentityProvider, AfterValidator(_public)] | None = None
    """Who vouches for its officers."""


class OwnSystem(_Strict):
    """A face-recognition system that the owner operates."""

    name: str
    commercial: bool
    lowest_group_accuracy: Annotated[int, Field(ge=0, le=1000)] | None = None


class GalleryManifest(_Strict):
    """What the owner of a gallery says of it."""

    name: str
    system: Name
    """The system that holds it; another agency may operate it."""
    gallery_class: GalleryClassName
    origin: GalleryOriginName | None = None
    records: Annotated[int, Field(ge=0)]
    """How many pictures it had."""
    as_of: date
    """On which day."""


class KeptList(_Strict):
    """A list of officers that the owner keeps."""

    title: str
    entered_by: tuple[Ori, ...] = ()
    """Other agencies that may enter their own officers."""


class OwnOffences(_Strict):
    """Offences that the owner's statute or order names together."""

    title: str
    nibrs: tuple[NibrsCode, ...] = ()
    statutes: tuple[Statute, ...] = ()


class PublicPart(_Strict):
    """What `agency.toml` says."""

    owner: Party
    agency: Agency | None = None
    """What it is; None for a jurisdiction."""
    keys: Keys
    systems: Mapping[Name, OwnSystem] = Field(default_factory=dict)
    galleries: Mapping[Name, GalleryManifest] = Field(default_factory=dict)
    lists: Mapping[Name, KeptList] = Field(default_factory=dict)
    offence_sets: Mapping[Name, OwnOffences] = Field(default_factory=dict)
    oversight: Mapping[Name, OversightBody] = Field(default_factory=dict)
    members: tuple[Jurisdiction, ...] = ()
    """Of a union of countries: its members, whose agencies its directives bind."""

    @property
    def is_agency(self) -> bool:
        """Whether the owner has an ORI."""
        return len(self.owner) == 9

    @property
    def purposes(self) -> frozenset[str]:
        """For what it registers keys."""
        return frozenset(one for one in type(self.keys).model_fields if getattr(self.keys, one))

    @model_validator(mode="after")
    def _fits_its_owner(self) -> Self:
        if self.is_agency:
            if self.agency is None:
                raise ValueError("an agency says in [agency] what it is")
            if self.oversight:
                raise ValueError("oversight bodies are registered by jurisdictions, not agencies")
            if self.members:
                raise ValueError("members are registered by unions, not agencies")
            return self
        if self.agency is not None or self.systems or self.galleries or self.lists:
            raise ValueError("a jurisdiction registers offence_sets, oversight and members only")
        if self.members and "-" in self.owner:
            raise ValueError("a part of a country is no union, and has no members")
        for code in self.members:
            if code.partition("-")[0] == self.owner:
                raise ValueError(f"{code} is {self.owner} itself, or a part of it, and no member")
        for name, body in self.oversight.items():
            for code in body.jurisdictions:
                if code != self.owner and not code.startswith(f"{self.owner}-"):
                    raise ValueError(
                        f"oversight.{name} is to oversee {code}, of which {self.owner} cannot dispose"
                    )
        return self


class PrivatePart(_Strict):
    """What `officers.toml` says."""

    officers: Mapping[OfficerId, Standing] = Field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """An owner's folder, read."""

    public: PublicPart
    public_bytes: bytes
    officers: Mapping[str, Standing]

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.public.owner


def read(folder: Path) -> Document:
    """Reads a folder; raises RegistryRefused. Without officers.toml it has no officers."""
    label = folder.name
    public_bytes = read_file(folder / AGENCY_FILE, AGENCY_BYTES_MAX)
    public = parse_public(f"{label}/{AGENCY_FILE}", public_bytes)
    path = folder / OFFICERS_FILE
    officers: Mapping[str, Standing] = {}
    if path.exists():
        content = read_file(path, OFFICERS_BYTES_MAX)
        officers = parse_officers(f"{label}/{OFFICERS_FILE}", content, public)
    return Document(public, public_bytes, officers)


def parse_public(file: str, content: bytes) -> PublicPart:
    """Reads the bytes of `agency.toml`; raises RegistryRefused. Messages name it by `file`."""
    if len(content) > AGENCY_BYTES_MAX:
        raise _too_large(file, AGENCY_BYTES_MAX)
    text = _text(file, content)
    if "PRIVATE KEY" in text:
        raise refused("PRIVATE_KEY", file, "holds a private key: take it out, and make another")
    public = _parsed(PublicPart, file, text)
    findings = [
        Finding(
            "LIST_UNKNOWN",
            file,
            f"lists.{name}",
            f"entered_by names {public.owner}, which enters its officers anyway",
            place_of(text, ("lists", name, "entered_by")),
        )
        for name, kept in public.lists.items()
        if public.owner in kept.entered_by
    ]
    if findings:
        raise RegistryRefused(findings)
    return public


def parse_officers(file: str, content: bytes, public: PublicPart) -> Mapping[str, Standing]:
    """Reads the bytes of `officers.toml`; raises RegistryRefused."""
    if len(content) > OFFICERS_BYTES_MAX:
        raise _too_large(file, OFFICERS_BYTES_MAX)
    officers = _parsed(PrivatePart, file, _text(file, content)).officers
    if officers and not public.is_agency:
        raise refused("OFFICERS_OF_NO_AGENCY", file, f"{public.owner} is no agency")
    return officers


def read_file(path: Path, bytes_max: int) -> bytes:
    """The bytes of a file of a folder; raises RegistryRefused."""
    label = f"{path.parent.name}/{path.name}"
    try:
        if path.exists() and not path.is_file():
            raise refused("FILE_MISSING", label, "is no file")
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise refused("FILE_MISSING", label, f"cannot be read: {error.strerror}") from error
    if len(content) > bytes_max:
        raise _too_large(label, bytes_max)
    return content


def _too_large(file: str, bytes_max: int) -> RegistryRefused:
    return refused("FILE_TOO_LARGE", file, f"larger than {bytes_max} bytes")


def _text(file: str, content: bytes) -> str:
    try:
        return text_of(file, content)
    except DirectiveRefused as found:
        raise RegistryRefused(found.findings) from found


def _parsed(model: type[_Model], file: str, text: str) -> _Model:
    try:
        return model.model_validate(_as_tuples(plain_toml.loads(text)), strict=True)
    except ValidationError as error:
        raise RegistryRefused(list(_findings(file, text, error))) from error
    except (ValueError, RecursionError) as error:
        # Besides its own error, the parser lets through those of numbers and dates out of range.
        found = _TOML_PLACE.search(str(error))
        place = Place(int(found[1]), int(found[2])) if found else None
        message = f"not TOML: {_TOML_PLACE.sub('', str(error))}"
        raise refused("DOCUMENT", file, message, place) from error


def _findings(file: str, text: str, error: ValidationError) -> Iterator[Finding]:
    for problem in error.errors()[:FINDINGS_MAX]:  # each is looked for in the text
        field = ".".join(str(part) for part in problem["loc"])
        place = place_of(text, problem["loc"])
        yield Finding("DOCUMENT", file, field, plainly(problem["type"], problem["msg"]), place)


def _as_tuples(value: Any) -> Any:
    """Lists as tuples: what is read is never changed, and strict reading takes nothing else for one."""
    if isinstance(value, list):
        return tuple(_as_tuples(one) for one in value)
    if isinstance(value, dict):
        return {key: _as_tuples(one) for key, one in value.items()}
    return value


def place_of(text: str, where: tuple[str | int, ...]) -> Place | None:
    """The line that gives a field, or else the table that it belongs to; None when neither is there."""
    wanted = [str(part) for part in where]
    table: list[str] = []
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            table = found = _path(header[1])
        elif key:
            found = table + _path(key[1])
        else:
            continue
        if found == wanted[: len(found)] and (best is None or len(found) > best[0]):
            best = len(found), number
    return Place(best[1], 1) if best else None


def _path(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]
