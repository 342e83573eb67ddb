"""How entries and checkpoints look to a person."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from countersign.cli.output import cells, table
from countersign.cli.rows import Rows
from countersign.cli.search_faults import faults_of_all
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1 import ledger_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import (
    ExpungeDeclined,
    ExpungeRequested,
    OpeningsExpunged,
    RegistrarsOrdered,
    RegistryStatement,
    RestoreCause,
)
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from registry.findings import RegistryRefused
from registry.orders import SignedOrder
from shared.entry_facts import short_name
from shared.entry_json import message_dict, moment_text
from shared.kinds import SCHEMA_EPOCH, kind_name
from tlog.checkpoint import Checkpoint

ENTRIES_NAMED: Final = 5
"""Entries that a line names one by one."""


def checkpoint_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint for programs."""
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": b64encode(checkpoint.root).decode(),
    }


def entry_rows(records: Sequence[pb.EntryRecord]) -> Rows:
    """One row for each entry."""
    rows = table(
        *("index", "recorded (UTC)", "kind", "agency", "search", "what"),
        text={"what"},
        below={"search": "what", "kind": "recorded (UTC)"},
    )
    for record in records:
        entry = _understood(record.entry)
        event = _event(entry)
        rows.add_row(
            *cells(
                record.index,
                _time(entry),
                kind_name(record.entry),
                _agency(event),
                entry.search_id,
                _what(entry),
            )
        )
    return rows


def show_entry(record: pb.EntryRecord) -> Rows:
    """One row for each field that the entry has. Those of the event are named without its kind."""
    rows = table(
        *("field", "value"),
        title=f"Entry {record.index}",
        text={"value"},
        below={"value": "field"},
    )
    kind = kind_name(record.entry)
    rows.add_row(*cells("bytes", len(record.leaf)))
    rows.add_row(*cells("kind", kind))
    if record.entry.schema_epoch > SCHEMA_EPOCH:
        rows.add_row(*cells("what it says", "written by a newer program; not shown by this one"))
    for name, value in _flat(message_dict(_understood(record.entry)), ""):
        rows.add_row(*cells(name.removeprefix(f"{kind}."), value))
    return rows


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{number}]")
    elif name.endswith("sha256"):
        # As `directive show` and sha256sum print it.
        yield name, b64decode(value).hex()
    else:
        yield name, value


def _understood(entry: Entry) -> Entry:
    """The entry as far as its fields mean what this program takes them to mean (see entry.proto)."""
    if entry.schema_epoch > SCHEMA_EPOCH:
        return Entry(schema_epoch=entry.schema_epoch)
    return entry


def _event(entry: Entry) -> Message | None:
    kind = entry.WhichOneof("event")
    return None if kind is None else getattr(entry, kind)


def _time(entry: Entry) -> str:
    if not entry.HasField("recorded_at"):
        return ""
    return moment_text(entry.recorded_at, "%Y-%m-%d %H:%M:%S")


def _agency(event: Any) -> str:
    summary = getattr(event, "summary", event)
    return str(getattr(summary, "origin_agency", "") or getattr(event, "party", ""))


def _what(entry: Entry) -> str:
    """What matters most of an entry, in one line."""
    kind = entry.WhichOneof("event")
    if kind in ("search_decided", "search_checked"):
        return _decision(getattr(entry, kind))
    if kind == "search_answered":
        answered = entry.search_answered
        return f"{answered.system}: {answered.candidates_returned} candidates"
    if kind == "search_failed":
        reason = short_name(FailureReason, entry.search_failed.reason)
        return f"{entry.search_failed.system}: {reason}"
    if kind == "request_rejected":
        rejected = entry.request_rejected
        before = f" (and {rejected.unrecorded_before} before)" if rejected.unrecorded_before else ""
        return f"{rejected.reason} {_name_in(rejected.caller)}{before}"
    if kind == "search_undecided":
        return entry.search_undecided.reason
    if kind == "opening_read":
        read = entry.opening_read
        return f"entry {read.entry_index}: {', '.join(read.fields)} {_name_in(read.caller)}"
    if kind == "requests_read":
        many = entry.requests_read
        if many.registrations:
            return f"{many.found} registrations of officers {_name_in(many.caller)}"
        return f"{many.found} decisions: {', '.join(many.fields)} {_name_in(many.caller)}"
    if kind == "expunge_requested":
        return f"{_entries(entry.expunge_requested)} {_name_in(entry.expunge_requested.caller)}"
    if kind == "openings_expunged":
        return f"{_entries(entry.openings_expunged)} {_name_in(entry.openings_expunged.caller)}"
    if kind == "log_restored":
        cause = short_name(RestoreCause, entry.log_restored.cause)
        return f"{entry.log_restored.restored_size} entries: {cause}"
    if kind == "expunge_declined":
        return _declined(entry.expunge_declined)
    return _said(entry)


def _said(entry: Entry) -> str:
    kind = entry.WhichOneof("event")
    if kind == "directive_published":
        published = entry.directive_published
        return f"{published.name} from {_date(published.effective_from)}"
    if kind == "directive_withdrawn":
        withdrawn = entry.directive_withdrawn
        return f"{withdrawn.name} until {_date(withdrawn.effective_until)}"
    if kind == "registry_published":
        return _of_registry(entry.registry_published.statement)
    if kind == "officers_published":
        return _of_registry(entry.officers_published.statement)
    if kind == "registrars_ordered":
        return _of_order(entry.registrars_ordered)
    if kind == "runs_reported":
        told = entry.runs_reported
        return f"{told.system}: {told.runs} runs of {told.day}"
    if kind == "alarm_raised":
        alarm = entry.alarm_raised
        return " ".join(filter(None, (alarm.reason, alarm.system, *alarm.evidence[:2])))
    return ""


def _of_registry(said: RegistryStatement) -> str:
    return f"{said.owner}, serial {said.serial}: {said.officers} officers"


def _of_order(said: RegistrarsOrdered) -> str:
    """What it says; whether it counts is `registry list`'s to tell."""
    try:
        signed = SignedOrder.parse(said.note)
    except RegistryRefused:
        return f"{said.owner}: cannot be read"
    names = ", ".join(one.name for one in signed.note.signatures)
    return f"{signed.label}, signed by {names}"


def _date(stamp: Timestamp) -> str:
    return moment_text(stamp, "%Y-%m-%d")


def _declined(event: ExpungeDeclined) -> str:
    how = "withdrawn" if event.withdrawn else "declined"
    return f"request {event.requested_index} {how} {_name_in(event.caller)}"


def _entries(event: ExpungeRequested | OpeningsExpunged) -> str:
    """The entries concerned: all when few."""
    first = ", ".join(str(index) for index in event.entry_indexes[:ENTRIES_NAMED])
    more = len(event.entry_indexes) - ENTRIES_NAMED
    return f"entry {first}" + (f" and {more} more" if more > 0 else "")


def _name_in(spiffe_id: str) -> str:
    """A caller without the trust domain: "agency/CA0194200"."""
    return spiffe_id.partition("://")[2].partition("/")[2] or spiffe_id


def _decision(event: Any) -> str:
    outcome = short_name(DecisionOutcome, event.decision.outcome)
    target = f"{event.summary.system}/{event.summary.gallery}"
    return f"{target} {outcome}" + "".join(f"\n{reason}" for reason in _against(event.decision))


def _against(decision: Decision) -> Iterator[str]:
    """Why not: what keeps every party from telling, once; else each party with its faults and rules."""
    shared = faults_of_all(decision)
    if shared:
        yield ", ".join(shared)
        return
    reasons: dict[str, dict[str, None]] = {}
    for verdict in decision.verdicts:
        if verdict.outcome != VerdictOutcome.VERDICT_OUTCOME_PERMIT:
            said = [*verdict.faults, *(rule.id for rule in verdict.rules)]
            # A party in two seats mostly says the same in both.
            reasons.setdefault(verdict.party or "unknown", {}).update(dict.fromkeys(said))
    for party, said_of in reasons.items():
        yield f"{party}: {', '.join(said_of) or 'no rule'}"
