"""`countersign ledger mirror`: a full, verified copy of somebody else's log."""

import asyncio
import logging
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from countersign.cli.ledger_keys import given
from countersign.cli.ledger_lines import line
from countersign.cli.ledger_trust import process_settings, trust_options, url_of
from countersign.cli.output import OK, bar, err, json_option
from countersign.cli.signals import until_told
from countersign.client import VerificationError
from countersign.mirror.copy import Copy, opened
from countersign.mirror.follow import Followed, Forked, Mirror
from countersign.mirror.sources import CannotFollow, HttpSource, http_session
from shared import logs, telemetry
from shared.clock import SystemClock
from shared.errors import Unavailable
from tlog.policy import Policy

log = logging.getLogger(__name__)


@click.command()
@click.argument("where", nargs=-1, required=True, metavar="[URL] FOLDER")
@trust_options
@click.option("--once", is_flag=True, help="Take over what is new and end.")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1, 86_400), default=10.0, show_default=True,
    metavar="S", help="Seconds from one look at the log to the next.",
)  # fmt: skip
@click.option(
    "--mend", is_flag=True,
    help="Write damaged files of the copy anew, from the log, verified by the copy's own checkpoint.",
)  # fmt: skip
@click.option("--skip-check", is_flag=True, help="Do not read the whole copy again at the start.")
@json_option
def mirror(
    where: Sequence[str],
    keys: Sequence[str],
    policy_file: Path | None,
    config: Path | None,
    once: bool,
    every_s: float,
    mend: bool,
    skip_check: bool,
    as_json: bool,
) -> int:
    """Follow a log and keep a full copy of it in FOLDER, every entry verified.

    The copy is laid out as C2SP tlog-tiles: any static server can show it, and `ledger verify` judges it
    offline. It moves from one verified state to the next, whatever is killed in between. A log that
    signed two histories is refused, and both checkpoints with the proof are kept in FOLDER/evidence.

    Exit codes: 0 done, or told to stop; 1 the log or the copy is not what was signed; 2 not understood, or
    the folder cannot be written; 3 the log could not be reached.

    \b
    Examples:
      countersign ledger mirror https://log.example copy --policy witnesses.policy
      countersign ledger mirror http://127.0.0.1:7444 copy --key ledger.vkey --once
    """
    if len(where) > 2:
        raise click.UsageError("give the log's URL and a folder")
    folder = Path(where[-1])
    url = url_of(where[0] if len(where) == 2 else None, config)
    policy = given(keys, policy_file, config)
    work = _Mirroring(url, folder, policy, as_json=as_json)
    settings = process_settings()
    if not once:
        logs.configure("countersign-mirror", settings.telemetry.log_level)
    started = telemetry.start("countersign-mirror", settings.telemetry)
    try:
        asyncio.run(
            until_told(work.run(once=once, every_s=every_s, mend=mend, check=not skip_check))
        )
    except asyncio.CancelledError:
        err().print("Stopped.")
    except CannotFollow as error:
        raise VerificationError(error.reason, str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror or error}") from error
    finally:
        started.stop()
    return OK


class _Mirroring:
    """One run of the command."""

    def __init__(self, url: str, folder: Path, policy: Policy, *, as_json: bool) -> None:
        self._url = url
        self._folder = folder
        self._policy = policy
        self._as_json = as_json

    async def run(self, *, once: bool, every_s: float, mend: bool, check: bool) -> None:
        with opened(self._folder, self._policy) as copy:
            async with http_session() as session:
                source = HttpSource(session, self._url)
                if mend:
                    with bar("mending") as progress:
                        self._say({"mended": await copy.mend(source, progress)})
                elif check:
                    await _check(copy)
                one = Mirror(source, copy, self._policy, SystemClock())
                while True:
                    await self._follow(one, once=once)
                    if once:
                        return
                    await asyncio.sleep(every_s)

    async def _follow(self, one: Mirror, *, once: bool) -> None:
        """One look. What may pass is only told, as long as there will be another look."""
        try:
            with bar("copying") as progress:
                followed = await one.follow(progress)
        except Forked:
            raise
        except (CannotFollow, Unavailable) as error:
            if once:
                raise
            message = error.message if isinstance(error, Unavailable) else str(error)
            log.error("not taken over", extra={"fields": {"reason": error.reason, "why": message}})
        else:
            if followed.added or once:
                self._say(_described(followed))

    def _say(self, document: dict[str, Any]) -> None:
        if self._as_json:
            line(document)
        elif "mended" in document:
            click.echo(f"Mended {document['mended']} files")
        else:
            click.echo(
                f"VERIFIED: {document['size']} entries, {document['added']} of them new"
                + (
                    f", cosigned by {', '.join(document['cosigned'])}"
                    if document["cosigned"]
                    else ""
                )
            )


async def _check(copy: Copy) -> None:
    with bar("verifying the copy") as progress:
        damaged = await copy.damaged(progress)
    if damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise CannotFollow(
            "COPY_DAMAGED",
            f"{damaged[0]}{more}; nothing was changed. With --mend, what is damaged is taken from the log "
            "again, verified by the copy's own checkpoint",
        )


def _described(followed: Followed) -> dict[str, Any]:
    checkpoint = followed.checkpoint
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": b64encode(checkpoint.root).decode(),
        "added": followed.added,
        "cosigned": list(followed.cosigned),
    }
