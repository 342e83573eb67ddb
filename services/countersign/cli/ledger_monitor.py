"""`countersign ledger monitor` and `evidence`: what concerns an agency, and whether the log is honest."""

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.escaping import without_commands
from countersign.cli.facts import ORI
from countersign.cli.ledger_files import read_bounded
from countersign.cli.ledger_keys import given
from countersign.cli.ledger_lines import line
from countersign.cli.ledger_trust import (
    URL_STARTS,
    process_settings,
    trust_options,
    url_of,
)
from countersign.cli.output import OK, REFUSED, USAGE, err, json_option
from countersign.cli.signals import until_told
from countersign.client import VerificationError
from countersign.mirror.concerns import Concern, recorded_at
from countersign.mirror.evidence import EVIDENCE_BYTES_MAX, verify_evidence
from countersign.mirror.memory import Memory
from countersign.mirror.sources import CannotFollow, FolderSource, HttpSource, Source, http_session
from countersign.mirror.watch import Alarm, AlarmKind, Look, Monitor, Watched
from shared import logs, telemetry
from shared.clock import SystemClock
from shared.entry_json import message_dict
from tlog.errors import TlogError
from tlog.policy import Policy

log = logging.getLogger(__name__)

STALE_AFTER_S: Final = 300.0
"""A log that works gives a sign of life each minute."""


@dataclass(frozen=True)
class _Asked:
    """What the command was told."""

    url: str
    against: str | None
    policy: Policy
    watched: Watched
    memory: Memory
    once: bool
    every_s: float
    as_json: bool


@click.command()
@click.argument("url", required=False)
@click.option(
    "--against", metavar="URL|FOLDER",
    help="What must show the same history: another address of the log, a mirror (URL or folder), or a "
    "witness's monitoring URL.",
)  # fmt: skip
@click.option(
    "--agency", "agencies", type=ORI, multiple=True, metavar="ORI",
    help="Print the entries that name this agency in any role. May be repeated.",
)  # fmt: skip
@click.option(
    "--stale-after", "stale_after_s", type=click.FloatRange(1), default=STALE_AFTER_S,
    show_default=True, metavar="S", help="Seconds without a sign of life that are an alarm.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Look once and end.")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1, 86_400), default=60.0, show_default=True,
    metavar="S", help="Seconds from one look to the next.",
)  # fmt: skip
@click.option(
    "--state", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Remember here, from one run to the next, what the log showed and where to read on.",
)  # fmt: skip
@click.option(
    "--start", type=click.IntRange(0), default=0, help="First entry to read without a state."
)
@click.option(
    "--evidence", type=click.Path(path_type=Path, file_okay=False), default=Path("evidence"),
    show_default=True, metavar="FOLDER", help="Where contradictions are kept.",
)  # fmt: skip
@trust_options
@json_option
def monitor(
    url: str | None,
    against: str | None,
    agencies: Sequence[str],
    stale_after_s: float,
    once: bool,
    every_s: float,
    state: Path | None,
    start: int,
    evidence: Path,
    keys: Sequence[str],
    policy_file: Path | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Watch a log: for entries of an agency, and for a log that is stale, shrinks, or shows two histories.

    Entries go to standard output, one line each (--json: one JSON document each). Each look and each alarm
    is a JSON line on standard error and an OpenTelemetry metric (COUNTERSIGN_TELEMETRY__EXPORTER).

    Exit codes of --once, the worst that was found: 0 all is well; 1 what was served does not verify; 2 not
    understood; 3 a source could not be reached; 4 the log is stale; 5 it shows fewer entries than it
    signed; 6 it signed two histories. Without --once it goes on after alarms, and ends with 6 at once when
    two histories were signed.

    \b
    Examples:
      countersign ledger monitor https://log.example --key ledger.vkey --agency CA0194200
      countersign ledger monitor https://log.example --policy witnesses.policy --against copy --once
    """
    policy = given(keys, policy_file, config)
    try:
        memory = Memory.load(state, start)
    except CannotFollow as error:
        raise VerificationError(error.reason, str(error)) from error
    asked = _Asked(
        url=url_of(url, config),
        against=against,
        policy=policy,
        watched=Watched(agencies, stale_after_s, evidence),
        memory=memory,
        once=once,
        every_s=every_s,
        as_json=as_json,
    )
    settings = process_settings()
    logs.configure("countersign-monitor", settings.telemetry.log_level)
    started = telemetry.start("countersign-monitor", settings.telemetry)
    try:
        return asyncio.run(until_told(_watch(asked)))
    except asyncio.CancelledError:
        err().print("Stopped.")
        return OK
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror or error}") from error
    finally:
        started.stop()


async def _watch(asked: _Asked) -> int:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(http_session())
        other: Source | None = None
        if asked.against is not None and asked.against.startswith(URL_STARTS):
            other = HttpSource(session, asked.against)
        elif asked.against is not None:
            other = FolderSource(Path(asked.against))
        one = Monitor(
            HttpSource(session, asked.url),
            other,
            asked.policy,
            asked.watched,
            asked.memory,
            SystemClock(),
        )
        while True:
            look = await one.look(lambda concern: _tell(concern, as_json=asked.as_json))
            _report(look, as_json=asked.as_json)
            split = any(alarm.kind is AlarmKind.SPLIT_VIEW for alarm in look.alarms)
            if asked.once or split:
                return look.exit_code or (USAGE if look.not_kept else OK)
            await asyncio.sleep(asked.every_s)


def _tell(concern: Concern, *, as_json: bool) -> None:
    if as_json:
        line(
            {
                "entry": concern.index,
                "kind": concern.kind,
                "agency": concern.agency,
                "roles": list(concern.roles),
                "leaf": b64encode(concern.leaf).decode(),
                "says": message_dict(concern.entry),
            }
        )
        return
    at = recorded_at(concern.leaf)
    when = "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    roles = ", ".join(concern.roles)
    click.echo(f"{concern.index:>9}  {when:19}  {concern.kind:18}  {concern.agency}: {roles}")


def _report(look: Look, *, as_json: bool) -> None:
    """Every look and alarm is a log line; alarms are among the results as well."""
    fields: dict[str, Any] = {"new": look.new, "concerning": look.concerning}
    if look.seen is not None:
        fields["size"] = look.seen.checkpoint.size
        fields["cosigned"] = list(look.seen.judged.cosigned)
    if look.age_s is not None:
        fields["age_s"] = round(look.age_s, 1)
    log.info("looked", extra={"fields": fields})
    if look.not_kept:
        log.error("state not kept", extra={"fields": {"why": look.not_kept}})
    for alarm in look.alarms:
        document = _alarm(alarm)
        log.error("alarm", extra={"fields": document})
        if as_json:
            line({"alarm": document})
        else:
            kept = f" (evidence: {alarm.evidence})" if alarm.evidence else ""
            click.echo(without_commands(f"ALARM {document['kind']}: {alarm.what}{kept}"))
    if as_json:
        line({"look": fields})


def _alarm(alarm: Alarm) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": alarm.kind.name.lower(), "what": alarm.what}
    if alarm.evidence is not None:
        document["evidence"] = str(alarm.evidence)
    return document


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
)  # fmt: skip
@trust_options
@json_option
def evidence(
    files: Sequence[Path],
    keys: Sequence[str],
    policy_file: Path | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Judge evidence that a log signed two histories, offline, by the log's key alone.

    Says PROVEN and what is, or why it is not. Exit codes: 0 all of it proves two histories, 1 not all.

    \b
    Example:
      countersign ledger evidence copy/evidence/contradiction-*.json --key ledger.vkey
    """
    policy = given(keys, policy_file, config)
    code = OK
    for file in files:
        try:
            document = json.loads(read_bounded(file, EVIDENCE_BYTES_MAX))
            says, proven = verify_evidence(document, policy), True
        except (TlogError, VerificationError, ValueError, RecursionError) as error:
            says, proven, code = str(error), False, REFUSED
        if as_json:
            line({"path": str(file), "proven": proven, "says": says})
        else:
            click.echo(without_commands(f"{'PROVEN' if proven else 'NOT PROVEN'} {file}: {says}"))
    return code
