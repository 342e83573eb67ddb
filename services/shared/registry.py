"""Who takes part: agencies, systems, galleries and officers, and the public keys that they are known by.

Two files, because they change hands differently. The *registry* (TOML) says what each participant is;
directives are evaluated against it. The *trust roots* (JSON) are the public keys of log, broker,
connectors and identity providers; each connector and client holds its own copy and takes keys from
nowhere else.

Agencies are named by ORI, jurisdictions by ISO 3166-2, officers by an identifier of their agency that
is not their name. Both files are read strictly: an unknown or dangling name stops the start.
"""

import base64
import binascii
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    field_serializer,
    model_validator,
)

from countersign.type.v1.circumstances_pb2 import GalleryOrigin
from countersign.type.v1.search_pb2 import GalleryClass, SearchFacts
from shared.model_errors import problems_of
from shared.registrars import Registrars

Ori = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{9}$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Party = Ori | Jurisdiction
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
OFFICER_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,127}$"
OfficerId = Annotated[str, StringConstraints(pattern=OFFICER_PATTERN)]
Course = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9-]{0,62}$")]
NibrsCode = Annotated[str, StringConstraints(pattern=r"^[0-9]{2}[0-9A-Z]$")]
GalleryClassName = Literal[
    "booking_photos",
    "driver_licences",
    "passports",
    "missing_persons",
    "web_scraped",
    "prisoners",
    "criminal_justice_repository",
]
GalleryOriginName = Literal["criminal_proceedings", "civil_record", "given", "untargeted_scraping"]
Statute = Annotated[str, StringConstraints(min_length=1, max_length=200)]
OversightRight = Literal["disclose", "find", "expunge"]
"""To read openings; to find entries by what they hold; to ask for, or approve, their destruction."""


class RegistryError(Exception):
    """The registry or the trust roots cannot be read; the message names file and field."""


def _key_bytes(value: object) -> object:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError("not standard base64") from error
    return value


Key32 = Annotated[bytes, BeforeValidator(_key_bytes), Field(min_length=32, max_length=32)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Agency(_Strict):
    """A department or other body with an ORI."""

    name: str
    jurisdiction: Jurisdiction
    agreements: Mapping[Course, date] = Field(default_factory=dict)
    """What is on file of it (a memorandum, an adopted policy) to the first day on which it does not count."""


class System(_Strict):
    """One face-recognition system."""

    name: str
    operator: Ori
    commercial: bool
    """True for a commercial service of a third party."""
    lowest_group_accuracy: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Of 1,000 searches, how many the algorithm answers rightly in the demographic group in which it does
    worst, as an evaluation found; None while there is none."""


class Gallery(_Strict):
    """A set of face images within a system."""

    name: str
    system: Name
    owner: Ori
    gallery_class: GalleryClassName
    origin: GalleryOriginName | None = None
    """How its pictures came into it; None when nobody knows."""

    @property
    def proto_origin(self) -> GalleryOrigin.ValueType:
        """The origin as the contracts name it; unspecified when nobody knows."""
        return GalleryOrigin.Value(f"GALLERY_ORIGIN_{(self.origin or 'unspecified').upper()}")

    @property
    def proto_class(self) -> GalleryClass.ValueType:
        """The class as the contracts name it."""
        return GalleryClass.Value(f"GALLERY_CLASS_{self.gallery_class.upper()}")


class NamedList(_Strict):
    """A list of officers that an agency keeps, such as those who may use a system."""

    title: str
    owner: Ori


class Standing(_Strict):
    """What an agency says of one of its officers."""

    active: bool
    lists: tuple[Name, ...] = ()
    certificates: Mapping[Course, date] = Field(default_factory=dict)
    """Course to the first day on which the certificate no longer counts."""
    certificates_issued: Mapping[Course, date] = Field(default_factory=dict)
    """Course to the day on which the certificate was issued, where that is known."""

    @model_validator(mode="after")
    def _issued_is_held(self) -> Self:
        unheld = sorted(self.certificates_issued.keys() - self.certificates.keys())
        if unheld:
            raise ValueError(f"certificates_issued names {unheld}, which certificates does not")
        return self


class Officer(Standing):
    """An officer of an agency."""

    agency: Ori


class OffenceSet(_Strict):
    """Offences that a statute or an order names together."""

    title: str
    owner: Ori | Jurisdiction
    """Whose statute or order it is."""
    nibrs: tuple[NibrsCode, ...] = ()
    """Offences that it has by their FBI NIBRS code, every offence of the code."""
    statutes: tuple[Statute, ...] = ()
    """Offences that it has by the statute, written as searches cite it."""


class OversightBody(_Strict):
    """A body that oversees agencies: a commission, an inspector general, a court."""

    name: str
    jurisdictions: tuple[Jurisdiction, ...] = Field(min_length=1)
    """Whose agencies: "US-CA"; a country stands for its states too."""
    rights: tuple[OversightRight, ...] = ()
    """What it may do with openings. The public fields are open to everybody."""

    def watches(self, jurisdiction: str) -> bool:
        """Whether an agency of this jurisdiction is one of its own."""
        return any(
            jurisdiction == one or jurisdiction.startswith(f"{one}-") for one in self.jurisdictions
        )


@dataclass(frozen=True)
class PartiesOf:
    """Who must be asked about a search. None where the registry does not know."""

    origin: str
    beneficiary: str | None
    operator: str | None
    gallery_owner: str | None
    jurisdictions: tuple[str, ...]
    """Those that the agencies are in."""
    jurisdictions_above: tuple[str, ...]
    """Their countries and unions, as far as no agency is in them itself."""
    gallery_class: GalleryClass.ValueType


class Registry(_Strict):
    """Who takes part, without keys."""

    agencies: Mapping[Ori, Agency]
    systems: Mapping[Name, System] = Field(default_factory=dict)
    galleries: Mapping[Name, Gallery] = Field(default_factory=dict)
    lists: Mapping[Name, NamedList] = Field(default_factory=dict)
    officers: Mapping[OfficerId, Officer] = Field(default_factory=dict)
    offence_sets: Mapping[Name, OffenceSet] = Field(default_factory=dict)
    oversight: Mapping[Name, OversightBody] = Field(default_factory=dict)
    unions: Mapping[Jurisdiction, tuple[Jurisdiction, ...]] = Field(default_factory=dict)
    """Union to its members: "EU" to "DE". A state's country follows from its code."""
    _published: bytes | None = PrivateAttr(default=None)
    _published_days: frozenset[date] | None = PrivateAttr(default=None)
    _expelled: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="after")
    def _no_dangling_names(self) -> Self:
        """Cedar skips a rule whose entity is missing, so a dangling name could undo a prohibition."""
        wanted: list[tuple[str, str, Mapping[str, Any]]] = [
            (f"systems.{k}.operator", v.operator, self.agencies) for k, v in self.systems.items()
        ]
        for key, gallery in self.galleries.items():
            wanted.append((f"galleries.{key}.system", gallery.system, self.systems))
            wanted.append((f"galleries.{key}.owner", gallery.owner, self.agencies))
        wanted += [(f"lists.{k}.owner", v.owner, self.agencies) for k, v in self.lists.items()]
        for key, officer in self.officers.items():
            wanted.append((f"officers.{key}.agency", officer.agency, self.agencies))
            wanted += [(f"officers.{key}.lists", name, self.lists) for name in officer.lists]
        for where, name, known in wanted:
            if name not in known:
                raise ValueError(f"{where} names {name!r}, which the registry does not have")
        return self

    @field_serializer("officers", mode="wrap")
    def _plain(self, officers: Mapping[str, Officer], write: SerializerFunctionWrapHandler) -> Any:
        """Whatever kind of table they are in."""
        return write(dict(officers))

    @classmethod
    def load(cls, path: Path) -> "Registry":
        """Reads a TOML file; raises RegistryError."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise RegistryError(f"cannot read the registry {path}: {problems_of(error)}") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RegistryError(f"cannot read the registry {path}: {error}") from error

    @classmethod
    def assembled(
        cls,
        sections: Mapping[str, Mapping[str, Any]],
        sha256: bytes,
        days: frozenset[date],
        expelled: frozenset[str] = frozenset(),
    ) -> "Registry":
        """One of parts that were checked before, with their digest and all days that they name or named.

        For whoever follows what is published: nothing is looked at again, however many officers there are.
        """
        registry = cls.model_construct(None, **sections)
        registry._published = sha256
        registry._published_days = days
        registry._expelled = expelled
        return registry

    @property
    def expelled(self) -> frozenset[str]:
        """Parties by whose word nothing is permitted. What they registered stays, so that no rule that names
        it falls away."""
        return self._expelled

    @cached_property
    def sha256(self) -> bytes:
        """Digest of what directives judge by: as it was published, or as the file says it.

        Of published documents it is over what their owners signed (`registry.folding`). Of a file it is over
        the content, whatever the order of its lines; who oversees is left out, for no decision depends on it.
        """
        if self._published is not None:
            return self._published
        said = self.model_dump(mode="json", round_trip=True, exclude={"oversight"})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()

    @cached_property
    def days(self) -> frozenset[date]:
        """Every day that it names; of published documents, also those that they named before."""
        if self._published_days is not None:
            return self._published_days
        return frozenset(
            day
            for dated in (
                *(agency.agreements for agency in self.agencies.values()),
                *(officer.certificates for officer in self.officers.values()),
                *(officer.certificates_issued for officer in self.officers.values()),
            )
            for day in dated.values()
        )

    def above(self, jurisdiction: str) -> frozenset[str]:
        """The country of a state, and the unions of which either is a member."""
        own = {jurisdiction, jurisdiction.partition("-")[0]}
        unions = {union for union, members in self.unions.items() if not own.isdisjoint(members)}
        return frozenset((own | unions) - {jurisdiction})

    @cached_property
    def jurisdictions(self) -> frozenset[str]:
        """Each that an agency is in, and those above it."""
        own = {agency.jurisdiction for agency in self.agencies.values()}
        return frozenset(own.union(*map(self.above, own)))

    def parties(self, facts: SearchFacts) -> PartiesOf:
        """Who must be asked about a search. Computed here, never taken from the caller."""
        beneficiary = facts.beneficiary_agency if facts.HasField("beneficiary_agency") else None
        system = self.systems.get(facts.system)
        gallery = self.galleries.get(facts.gallery)
        if gallery is not None and gallery.system != facts.system:
            gallery = None
        operator = system.operator if system else None
        owner = gallery.owner if gallery else None
        involved = [facts.origin_agency, beneficiary, operator, owner]
        known = [self.agencies[ori] for ori in involved if ori is not None and ori in self.agencies]
        own = {agency.jurisdiction for agency in known}
        above = {one for code in own for one in self.above(code)}
        return PartiesOf(
            origin=facts.origin_agency,
            beneficiary=beneficiary,
            operator=operator,
            gallery_owner=owner,
            jurisdictions=tuple(sorted(own)),
            jurisdictions_above=tuple(sorted(above - own)),
            gallery_class=gallery.proto_class
            if gallery
            else GalleryClass.GALLERY_CLASS_UNSPECIFIED,
        )


class SystemKeys(_Strict):
    """The public keys of one system's connector."""

    sealing_public_key: Key32
    """X25519: probes are sealed to it."""
    answer_verify_key: Key32
    """Ed25519: answers are signed with it."""


class Peer(_Strict):
    """Another installation, with a ledger of its own."""

    trust_domain: Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{1,255}$")]
    log_verifier_keys: tuple[str, ...] = Field(min_length=1)
    systems: Mapping[Name, SystemKeys] = Field(default_factory=dict)
    parties: frozenset[Party] = frozenset()
    """Agencies and jurisdictions that are asked there. Nobody else asks from there."""


class IdentityProvider(_Strict):
    """Who vouches for an agency's officers."""

    issuer: str
    jwks: Mapping[str, Any]
    """JSON Web Key Set (RFC 7517) with the public keys that sign officer tokens."""


class TrustRoots(_Strict):
    """Public keys that are taken as true. Each holder has its own copy."""

    log_verifier_keys: tuple[str, ...] = Field(min_length=1)
    """C2SP signed-note verifier keys of the ledger, Ed25519 or ML-DSA-44. Signed by one of them is signed."""
    broker_verify_keys: tuple[Key32, ...] = Field(min_length=1)
    """Ed25519: orders are signed with one of them."""
    systems: Mapping[Name, SystemKeys] = Field(default_factory=dict)
    identity_providers: Mapping[Ori, IdentityProvider] = Field(default_factory=dict)
    directive_signers: Mapping[Party, tuple[str, ...]] | None = None
    """C2SP signed-note verifier keys with which each party signs its directives. While this is absent,
    nobody asks who wrote a directive; once it is there, an unsigned one is refused."""
    vocabulary_signers: tuple[str, ...] = ()
    """C2SP signed-note verifier keys of whoever owns the vocabulary. While there are none, nobody asks who
    wrote it; once there is one, an unsigned vocabulary is not loaded."""
    registry_signers: Mapping[Party, tuple[str, ...]] = Field(default_factory=dict)
    """C2SP signed-note verifier keys with which each owner signs its first registry document: who may take
    part at all. From then on the owner's own document says with which keys the next is signed."""
    registrars: tuple[Registrars, ...] = ()
    """Who can give an owner new keys or expel it, of each set a quorum. None by default: then nobody can."""
    peers: tuple[Peer, ...] = ()
    """Installations with which searches are exchanged."""

    @classmethod
    def load(cls, path: Path) -> "TrustRoots":
        """Reads a JSON file; raises RegistryError."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise RegistryError(
                f"cannot read the trust roots {path}: {problems_of(error)}"
            ) from error
        except OSError as error:
            raise RegistryError(f"cannot read the trust roots {path}: {error}") from error
