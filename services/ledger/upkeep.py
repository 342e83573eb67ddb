"""What an operator does to a ledger by hand: back up, restore, compare, and take under guard.

Each command is for one log, named by its configuration. Exit codes: 0 done, 1 refused or failed, 2 wrong
configuration.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from ledger.archive import Archive
from ledger.backup import BackupFailed, Manifest, back_up, unpacked, verified
from ledger.check import CheckFailed, check
from ledger.config import LedgerSettings
from ledger.feeding import configured
from ledger.from_settings import database_of, load_keys, notes_of, safeguards_of
from ledger.heard import Heard
from ledger.history import Peaks, followed
from ledger.keys import LogKeys
from ledger.last_signed import LastSigned, RecordDamaged, Signed, SigningRefused, recorded
from ledger.reading import Reading, StorageFailed
from ledger.restored import AUTHORITY_CHARACTERS_MAX, Restored, note
from ledger.sqlite_storage import SqliteDatabase
from ledger.storage import Database
from ledger.tree import Tiles, load_published
from shared.clock import SystemClock
from shared.errors import ServiceError
from shared.settings import SettingsError
from shared.signing import BadKey


class Refused(Exception):
    """It is not done; the message says why, and what to do."""


def run_backup(arguments: list[str]) -> int:
    """Back a ledger up, while it runs or not."""
    parser = _parser(
        "backup",
        "Copies the ledger into a new folder, as it is at one moment, and verifies all of the "
        "copy: a SQLite file, also of a log in PostgreSQL. The service may run.",
    )
    parser.add_argument("folder", type=Path, help="new folder for the backup")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    given = parser.parse_args(arguments)

    def back_it_up(settings: LedgerSettings) -> str:
        verifiers = load_keys(settings).verifiers
        database = database_of(settings)
        manifest, checked = back_up(database, verifiers, given.folder, SystemClock())
        if given.json:
            return json.dumps(asdict(manifest)) + "\n"
        return (
            f"BACKED UP: {manifest.size} entries, {checked.openings} openings, verified, in "
            f"{given.folder}\n"
        )

    return _run(given.config, back_it_up)


def run_restore(arguments: list[str]) -> int:
    """Put a backup in the place of a lost database."""
    parser = _parser(
        "restore",
        "Puts a backup in place, where there is no log now: a SQLite file that is not there, or a "
        "PostgreSQL database with its tables and nothing in them. The service must not run. "
        "Refuses a backup that is older than what was signed, or than what a witness has "
        "cosigned.",
    )
    parser.add_argument("folder", type=Path, help="folder of the backup")
    parser.add_argument(
        "--accept-size",
        type=int,
        metavar="SIZE",
        help="restore an old backup nevertheless, which has this many entries: the log can be read, and "
        "never grows again under this name",
    )
    _without_witnesses(parser)
    _by_authority(parser)
    given = parser.parse_args(arguments)

    def restore(settings: LedgerSettings) -> str:
        return _restore(settings, given)

    return _run(given.config, restore)


def run_restore_check(arguments: list[str]) -> int:
    """Compare a database, restored by whatever means, with what was signed and cosigned."""
    parser = _parser(
        "restore-check",
        "Verifies everything stored, and says whether the ledger would sign with it: whether it "
        "has all that was signed for and that witnesses have cosigned. Changes nothing.",
    )
    _without_witnesses(parser)
    given = parser.parse_args(arguments)

    def compare(settings: LedgerSettings) -> str:
        keys, database = load_keys(settings), database_of(settings)
        with contextlib.closing(database.open_for_reading()) as reading:
            checked = check(reading, keys.verifiers)
            size, root = checked.checkpoint.size, checked.checkpoint.root
            safeguards = safeguards_of(settings, alone=False)
            with contextlib.closing(safeguards.open_last_signed()) as store:
                _compare(store.read(), store, size, root, reading)
            _heed(settings, keys, database, size, unheard=given.without_witnesses)
        return f"COMPLETE: {size} entries, and nothing beyond was signed or cosigned\n"

    return _run(given.config, compare)


def run_adopt(arguments: list[str]) -> int:
    """Begin the record of the last signature for a log that has none."""
    parser = _parser(
        "adopt",
        "Records the stored checkpoint as the one that was signed last, where no record of it "
        "is, or one that is far behind. Only for whoever knows that nothing beyond it was ever "
        "signed; the service must not run.",
    )
    parser.add_argument(
        "--size",
        type=int,
        required=True,
        help="how many entries the log has, to be sure it is this one",
    )
    _without_witnesses(parser)
    _by_authority(parser)
    given = parser.parse_args(arguments)

    def adopt(settings: LedgerSettings) -> str:
        return _adopt(settings, given)

    return _run(given.config, adopt)


def _without_witnesses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-witnesses",
        action="store_true",
        help="do it although too few witnesses say what they have cosigned: you know from elsewhere that "
        "none has cosigned more than is here",
    )


def _by_authority(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--authority",
        type=_authority,
        default="",
        metavar="TEXT",
        help="by what authority the log comes back into service, for the entry that says that it did. "
        "Public: no names",
    )


def _authority(text: str) -> str:
    if len(text) > AUTHORITY_CHARACTERS_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"printable, and at most {AUTHORITY_CHARACTERS_MAX} characters"
        )
    return text


def _restore(settings: LedgerSettings, given: argparse.Namespace) -> str:
    folder, accepted, unheard = given.folder, given.accept_size, given.without_witnesses
    keys, database = load_keys(settings), database_of(settings)
    if database.has_log():
        raise Refused(f"{database} is there: move it away first, and keep it")
    manifest = Manifest.read(folder)
    if manifest.origin != keys.origin:
        raise Refused(f"the backup is of the log {manifest.origin}, not of {keys.origin}")
    if accepted is not None and accepted != manifest.size:
        raise Refused(f"the backup has {manifest.size} entries, not {accepted}")
    safeguards = safeguards_of(settings)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(safeguards.open_last_signed()))
        backup = stack.enter_context(unpacked(folder, manifest, database, keys.verifiers))
        copy = backup.copy
        checked = verified(copy, keys.verifiers)
        size, root = checked.checkpoint.size, checked.checkpoint.root
        reading = stack.enter_context(contextlib.closing(SqliteDatabase(copy).open_for_reading()))
        held = (size, root.hex(), reading.head().checkpoint)
        if held != (manifest.size, manifest.root, manifest.checkpoint):
            raise Refused("the backup's database is not of the checkpoint that its manifest has")
        try:
            _compare(store.read(), store, size, root, reading)
            _heed(settings, keys, SqliteDatabase(copy), size, unheard=unheard)
            end = None
        except SigningRefused as refusal:
            if refusal.reason in ("LEDGER_FORKED", "LEDGER_FORKED_FROM_WITNESS"):
                raise
            if accepted is None:
                _refuse_old(refusal, size)
            end = _end(store, keys.origin, size, root, reading, refusal)
        if end is None:
            of = Restored("RESTORE_CAUSE_BACKUP", size, root.hex(), held[2], given.authority)
            note(notes_of(settings), of)
        backup.put_in_place()
    if end is None:
        return f"RESTORED: {size} entries; the ledger can be started and goes on\n"
    return f"RESTORED TO BE READ ONLY: {size} entries. {end}\n"


def _refuse_old(refusal: SigningRefused, size: int) -> NoReturn:
    raise Refused(
        f"{refusal.message}. Find a newer backup or replica. If there is none, `--accept-size "
        f"{size}` restores this one to be read; the log then never grows again under its name, "
        "and a new log has to follow it"
    ) from refusal


def _end(
    store: LastSigned, origin: str, size: int, root: bytes, reading: Reading, why: SigningRefused
) -> str:
    """Record that nothing more is ever signed under this name, and why."""
    try:
        last = store.read()
    except RecordDamaged as damage:
        last = damage.survivor
    known = f"{last.size} had been signed for" if last else "nobody knows how many were signed for"
    ended = (
        f"This log has ended: a backup of {size} entries was restored on "
        f"{SystemClock().now():%Y-%m-%d}, although {known} ({why.reason}). It can be read, and "
        "signs nothing more; a new log, under another name and key, follows it. See the ledger's "
        "runbook, 'A new log that follows an old one'"
    )
    peaks = Peaks().grown_to(size, reading.leaves)
    base = last or Signed(origin, size, root, peaks=peaks.hashes)
    store.swap(last, base.with_end(ended))
    return ended


def _adopt(settings: LedgerSettings, given: argparse.Namespace) -> str:
    expected, unheard = given.size, given.without_witnesses
    keys, database, safeguards = load_keys(settings), database_of(settings), safeguards_of(settings)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(safeguards.open_last_signed()))
        try:
            last = store.read()
        except RecordDamaged as damage:
            raise Refused(f"{damage.message}. Move it away, and keep it") from damage
        if last is not None and (last.size >= expected or last.ended):
            raise Refused(f"{store.where} says already that {last.size} entries were signed for")
        reading = stack.enter_context(contextlib.closing(database.open_for_reading()))
        checkpoint = check(reading, keys.verifiers).checkpoint
        if checkpoint.size != expected:
            raise Refused(f"the database has {checkpoint.size} entries, not {expected}")
        first = last or Signed(keys.origin)
        if first.origin != keys.origin:
            raise Refused(f"{store.where} is of the log {first.origin}, not of {keys.origin}")
        peaks = followed(first, checkpoint.size, checkpoint.root, reading.leaves, store.where)
        _heed(settings, keys, database, checkpoint.size, unheard=unheard)
        time_us = int(SystemClock().now().timestamp() * 1_000_000)
        record = Signed(
            keys.origin,
            checkpoint.size,
            checkpoint.root,
            time_us,
            peaks.hashes,
            tuple(map(recorded, keys.vkeys)),
        )
        if checkpoint.size:
            at, signed = checkpoint.size, reading.head().checkpoint
            of = Restored(
                *("RESTORE_CAUSE_ADOPTED", at, checkpoint.root.hex(), signed, given.authority)
            )
            note(notes_of(settings), of)
        store.swap(last, record)
        return (
            f"ADOPTED: {checkpoint.size} entries are what was signed for last, by {store.where}\n"
        )


def _compare(
    last: Signed | None,
    store: LastSigned,
    size: int,
    root: bytes,
    reading: Reading,
) -> None:
    """Raise SigningRefused unless the database has all that was signed for."""
    if last is None:
        raise SigningRefused(
            "LAST_SIGNED_MISSING",
            f"{store.where} does not say how many entries were signed for last: there may be more "
            f"than the {size} here. Put the record in its place",
        )
    if last.ended:
        raise SigningRefused("LOG_ENDED", last.ended)
    followed(last, size, root, reading.leaves, store.where)


def _heed(
    settings: LedgerSettings, keys: LogKeys, database: Database, size: int, *, unheard: bool
) -> None:
    """Ask the witnesses, if any are configured, about what a database holds.

    Raises SigningRefused when one contradicts it; Refused when too few answer, unless that is accepted.
    """

    async def ask() -> Heard:
        async with configured(settings.witnessing, keys) as witnesses:
            if witnesses is None:
                return Heard()
            reading = database.open_for_reading()
            published = load_published(reading, keys.verifiers)
            with contextlib.closing(Archive(reading, Tiles(), lambda: published)) as archive:
                return await witnesses.heard(published, archive)

    heard = asyncio.run(ask())
    heard.require_one_history(size)
    if not heard.enough and not unheard:
        raise Refused(
            f"too few witnesses say what they have cosigned ({heard.said}), so that nobody knows whether "
            f"there is more than the {size} entries here. Wait for them, or look at their monitoring pages "
            "and name it: `--without-witnesses`"
        )


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"countersign-ledger {command}", description=description)
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    return parser


def _run(config: Path, command: Callable[[LedgerSettings], str]) -> int:
    try:
        sys.stdout.write(command(LedgerSettings.load(config)))
    except (SettingsError, BadKey) as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (Refused, SigningRefused) as error:
        sys.stderr.write(f"REFUSED: {error}\n")
        return 1
    except (BackupFailed, CheckFailed, StorageFailed, ServiceError, OSError) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    return 0
