"""A search as a case describes it, in the words of the vocabulary."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from countersign.type.v1.circumstances_pb2 import Circumstances, Emergency, Instrument
from countersign.type.v1.search_pb2 import Offence, SearchFacts
from directive.vocabulary import Vocabulary
from shared.clock import stamp

SEARCH_ID: Final = "00000000-0000-4000-8000-000000000000"
"""Rules cannot see the search id; every case has this one."""


def _in_utc(value: object) -> object:
    """YAML gives times without a zone as naive ones; cases are written in UTC. JSON has texts for times."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_in_utc)]
Number: TypeAlias = Callable[[str, str | None], Any]
"""The value of a list of the contracts for a word; 0 for None."""
SeatName = Literal["origin", "beneficiary", "operator", "gallery owner", "jurisdiction"]


class Strict(BaseModel):
    """What has fields that nobody knows is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class OffenceOf(Strict):
    """The offence of a case."""

    nibrs: str = ""
    statute: str = ""
    severity: str | None = None
    attempt: bool = False


class InstrumentOf(Strict):
    """The instrument of a case."""

    kind: str
    status: str | None = None
    issuer: str | None = None
    court: str = ""
    jurisdiction: str = ""
    scope: str | None = None
    issued: Moment | None = None
    expires: Moment | Literal["never"] | None = None
    uses_left: int | Literal["unlimited"] | None = Field(default=None, alias="usesLeft")

    def message(self, number: Number) -> Instrument:
        """The instrument as the contracts have it."""
        instrument = Instrument(
            kind=number("InstrumentKind", self.kind),
            status=number("InstrumentStatus", self.status),
            issuer=number("InstrumentIssuer", self.issuer),
            court=self.court,
            jurisdiction=self.jurisdiction,
            scope=number("InstrumentScope", self.scope),
            never_expires=self.expires == "never",
            unlimited_uses=self.uses_left == "unlimited",
        )
        if self.issued is not None:
            instrument.issued_at.CopyFrom(stamp(self.issued))
        if isinstance(self.expires, datetime):
            instrument.expires_at.CopyFrom(stamp(self.expires))
        if isinstance(self.uses_left, int):
            instrument.uses_left = self.uses_left
        return instrument


class EmergencyOf(Strict):
    """The emergency of a case; `claimed: false` when there is none."""

    claimed: bool
    basis: str = ""
    began: Moment | None = None
    ratify_by: Moment | None = Field(default=None, alias="ratifyBy")

    def message(self) -> Emergency:
        """The emergency as the contracts have it; its basis is a fact of its own."""
        emergency = Emergency(claimed=self.claimed)
        if self.began is not None:
            emergency.began_at.CopyFrom(stamp(self.began))
        if self.ratify_by is not None:
            emergency.ratify_by.CopyFrom(stamp(self.ratify_by))
        return emergency


class Request(Strict):
    """A request in the words of the vocabulary. None is "not given"."""

    officer: str
    origin: str
    beneficiary: str | None
    system: str
    gallery: str
    purpose: str | None
    suspicion: str | None
    offence: OffenceOf
    provenance: str | None
    capture_mode: str | None = Field(alias="captureMode")
    case_number: str = Field(default="", alias="caseNumber")
    narrative: str = ""
    candidates_max: int = Field(default=0, ge=0, le=50, alias="candidatesMax")
    probe_edit: str | None = Field(default=None, alias="probeEdit")
    route: str | None = None
    protected_basis: str | None = Field(default=None, alias="protectedBasis")
    investigation: str | None = None
    charge_status: str | None = Field(default=None, alias="chargeStatus")
    equivalent_statute: str = Field(default="", alias="equivalentStatute")
    consent_given: bool | None = Field(default=None, alias="consentGiven")
    asked_for_identity: bool | None = Field(default=None, alias="askedForIdentity")
    request_form_attested: bool | None = Field(default=None, alias="requestFormAttested")
    unsolicited: bool | None = None
    instrument: InstrumentOf | None = None
    emergency: EmergencyOf | None = None

    def circumstances(self, number: Number) -> Circumstances:
        """The circumstances as the contracts have them."""
        said = Circumstances(
            probe_edit=number("ProbeEdit", self.probe_edit),
            route=number("RequestRoute", self.route),
            protected_basis=number("ProtectedBasis", self.protected_basis),
            investigation=number("InvestigationStage", self.investigation),
            charge_status=number("ChargeStatus", self.charge_status),
            equivalent_statute=self.equivalent_statute,
            consent_given=self.consent_given,
            asked_for_identity=self.asked_for_identity,
            request_form_attested=self.request_form_attested,
            unsolicited=self.unsolicited,
        )
        if self.instrument is not None:
            said.instrument.CopyFrom(self.instrument.message(number))
        if self.emergency is not None:
            said.emergency.CopyFrom(self.emergency.message())
        return said

    def facts(self, vocabulary: Vocabulary) -> SearchFacts:
        """The request as the contracts have it; raises ValueError for a word that is not one."""

        def number(enum: str, word: str | None) -> Any:
            if word is None:
                return 0
            value = vocabulary.number(enum, word)
            if value is None:
                raise ValueError(f"{word!r} is not a {enum} of the vocabulary")
            return value

        facts = SearchFacts(
            search_id=SEARCH_ID,
            origin_agency=self.origin,
            system=self.system,
            gallery=self.gallery,
            purpose=number("Purpose", self.purpose),
            suspicion=number("SuspicionLevel", self.suspicion),
            offence=Offence(
                nibrs_code=self.offence.nibrs,
                statute=self.offence.statute,
                severity=number("OffenceSeverity", self.offence.severity),
                attempt=self.offence.attempt,
            ),
            provenance=number("ProbeProvenance", self.provenance),
            capture_mode=number("CaptureMode", self.capture_mode),
            case_number=self.case_number,
            narrative=self.narrative,
            candidates_max=self.candidates_max,
            circumstances=self.circumstances(number),
            emergency_basis=self.emergency.basis if self.emergency else "",
        )
        if self.beneficiary is not None:
            facts.beneficiary_agency = self.beneficiary
        return facts
