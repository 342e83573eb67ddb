"""The options by which a person states under what circumstances a search is asked for.

None has a default, and leaving one out says nothing: a directive that asks for what was not stated
refuses. "There is none" is said by a word of its own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

import click
from google.protobuf.message import Message

from countersign.type.v1 import circumstances_pb2 as pb
from shared.clock import stamp

_ENUMS: Final[Mapping[str, Any]] = {
    "probe_edit": pb.ProbeEdit,
    "route": pb.RequestRoute,
    "protected_basis": pb.ProtectedBasis,
    "investigation": pb.InvestigationStage,
    "charge_status": pb.ChargeStatus,
    "instrument": pb.InstrumentKind,
    "instrument_status": pb.InstrumentStatus,
    "instrument_issuer": pb.InstrumentIssuer,
    "instrument_scope": pb.InstrumentScope,
}


class Moment(click.ParamType[datetime]):
    """A day or a time in ISO 8601; UTC unless it says otherwise."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The time, aware."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a day or a time, such as 2026-06-01T12:00Z", param, ctx)


MOMENT: Final = Moment()


def _prefix(enum: Any) -> str:
    return str(enum.Name(0)).removesuffix("UNSPECIFIED")


def _words(fact: str) -> list[str]:
    enum = _ENUMS[fact]
    names = [enum.Name(number) for number in enum.values() if number != 0]
    return [name.removeprefix(_prefix(enum)).lower().replace("_", "-") for name in names]


def _number(fact: str, word: str | None) -> Any:
    if word is None:
        return 0
    enum = _ENUMS[fact]
    return enum.Value(_prefix(enum) + word.upper().replace("-", "_"))


@dataclass(frozen=True)
class StatedCircumstances:
    """What the options said; None is what they did not say."""

    probe_edit: str | None
    route: str | None
    protected_basis: str | None
    investigation: str | None
    charge_status: str | None
    equivalent_statute: str
    consent: bool | None
    asked_for_identity: bool | None
    request_form: bool | None
    unsolicited: bool | None
    instrument: str | None
    instrument_status: str | None
    instrument_issuer: str | None
    instrument_court: str
    instrument_jurisdiction: str
    instrument_scope: str | None
    instrument_number: str
    instrument_issued: datetime | None
    instrument_expires: datetime | None
    instrument_never_expires: bool
    instrument_uses: int | None
    instrument_unlimited: bool
    emergency: bool | None
    emergency_basis: str
    emergency_began: datetime | None
    ratify_by: datetime | None

    def message(self) -> pb.Circumstances | None:
        """What is public of them; None when nothing was said. Raises UsageError."""
        said = pb.Circumstances(
            probe_edit=_number("probe_edit", self.probe_edit),
            route=_number("route", self.route),
            protected_basis=_number("protected_basis", self.protected_basis),
            investigation=_number("investigation", self.investigation),
            charge_status=_number("charge_status", self.charge_status),
            equivalent_statute=self.equivalent_statute,
            consent_given=self.consent,
            asked_for_identity=self.asked_for_identity,
            request_form_attested=self.request_form,
            unsolicited=self.unsolicited,
        )
        if self._any_of("instrument"):
            said.instrument.CopyFrom(self._instrument())
        if self._any_of("emergency") or self.ratify_by is not None:
            said.emergency.CopyFrom(self._emergency())
        return said if said.ListFields() else None

    def _any_of(self, beginning: str) -> bool:
        given = (getattr(self, one.name) for one in fields(self) if one.name.startswith(beginning))
        return any(value is not None and value != "" and value is not False for value in given) or (
            beginning == "emergency" and self.emergency is False
        )

    def _instrument(self) -> pb.Instrument:
        if self.instrument is None:
            raise click.UsageError("say with --instrument what instrument it is, or none")
        if self.instrument_expires is not None and self.instrument_never_expires:
            raise click.UsageError("it expires (--instrument-expires) or it never does, not both")
        if self.instrument_uses is not None and self.instrument_unlimited:
            raise click.UsageError("give --instrument-uses or --instrument-unlimited, not both")
        instrument = pb.Instrument(
            kind=_number("instrument", self.instrument),
            status=_number("instrument_status", self.instrument_status),
            issuer=_number("instrument_issuer", self.instrument_issuer),
            court=self.instrument_court,
            jurisdiction=self.instrument_jurisdiction,
            scope=_number("instrument_scope", self.instrument_scope),
            never_expires=self.instrument_never_expires,
            uses_left=self.instrument_uses,
            unlimited_uses=self.instrument_unlimited,
        )
        _at(instrument, "issued_at", self.instrument_issued)
        _at(instrument, "expires_at", self.instrument_expires)
        return instrument

    def _emergency(self) -> pb.Emergency:
        if self.emergency is None:
            raise click.UsageError("say whether there is one: --emergency or --no-emergency")
        emergency = pb.Emergency(claimed=self.emergency)
        _at(emergency, "began_at", self.emergency_began)
        _at(emergency, "ratify_by", self.ratify_by)
        return emergency


def _at(message: Message, field: str, moment: datetime | None) -> None:
    if moment is not None:
        getattr(message, field).CopyFrom(stamp(moment))


def _word_option(name: str, text: str) -> Callable[[Any], Any]:
    fact = name.replace("-", "_")
    return click.option(f"--{name}", fact, type=click.Choice(_words(fact)), default=None, help=text)


def _flag(name: str, otherwise: str, text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}/--{otherwise}", name.replace("-", "_"), default=None, help=text)


def options() -> Iterator[Callable[[Any], Any]]:
    """The options, in the order in which help shows them."""
    yield _word_option("probe-edit", "What was done to the picture.")
    yield _word_option("route", "The channel through which the request comes.")
    yield _word_option("protected-basis", "On what protected activity or trait the search rests.")
    yield _word_option("investigation", "How far the investigation is.")
    yield _word_option("charge-status", "What stands against the person for the offence.")
    yield click.option(
        "--equivalent-statute", default="", help="Statute elsewhere that the offence is equal to."
    )
    yield _flag("consent", "no-consent", "Whether the person agreed to it.")
    yield _flag("asked-for-identity", "not-asked-for-identity", "Whether the person was asked.")
    yield _flag("request-form", "no-request-form", "Whether the beneficiary's form is on file.")
    yield _flag("unsolicited", "solicited", "Whether the beneficiary did not ask for it.")
    yield from _instrument_options()
    yield _flag("emergency", "no-emergency", "Whether there is an emergency.")
    yield click.option(
        "--emergency-basis",
        default="",
        help="On what facts it rests. Only a commitment to it is public.",
    )
    yield click.option("--emergency-began", type=MOMENT, help="When it began.")
    yield click.option("--ratify-by", type=MOMENT, help="By when it must be ratified.")


def _instrument_options() -> Iterator[Callable[[Any], Any]]:
    yield _word_option("instrument", "The instrument that authorises the search, or none.")
    yield _word_option("instrument-status", "Where the application for it stands.")
    yield _word_option("instrument-issuer", "Who issues it.")
    yield click.option("--instrument-court", default="", help="Name of the court or authority.")
    yield click.option(
        "--instrument-jurisdiction", default="", metavar="CODE", help="Its jurisdiction: US-MA."
    )
    yield _word_option("instrument-scope", "What it authorises.")
    yield click.option(
        "--instrument-number",
        default="",
        help="Its number or docket. Only a commitment to it is public.",
    )
    yield click.option("--instrument-issued", type=MOMENT, help="When it was issued.")
    yield click.option("--instrument-expires", type=MOMENT, help="When it expires.")
    yield click.option("--instrument-never-expires", is_flag=True, help="It does not expire.")
    yield click.option(
        "--instrument-uses", type=click.IntRange(0, 2**32 - 1), help="How many searches are left."
    )
    yield click.option("--instrument-unlimited", is_flag=True, help="Their number is not bounded.")
