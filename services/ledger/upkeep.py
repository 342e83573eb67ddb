"""What an operator does to a ledger by hand: back up, restore, compare, and take under guard.

Each command is for one log, named by its configuration. Exit codes: 0 done, 1 refused or failed, 2 wrong
configuration.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from ledger.backup import BackupFailed, Manifest, back_up, put_in_place, unpacked, verified
from ledger.check import CheckFailed, check
from ledger.config import LedgerSettings
from ledger.feeding import configured
from ledger.from_settings import database_of, load_keys, safeguards_of, sqlite_file
from ledger.history import Peaks, compare_with_witnesses, followed
from ledger.keys import LogKeys
from ledger.last_signed import LastSigned, RecordDamaged, Signed, SigningRefused
from ledger.postgres_storage import PostgresDatabase
from ledger.reading import Reading, StorageFailed
from ledger.sqlite_storage import SqliteDatabase
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
        "Copies the ledger's SQLite file into a new folder, as it is at one moment, and verifies "
        "all of the copy. The service may run. For PostgreSQL, see docs/runbook-ledger.md.",
    )
    parser.add_argument("folder", type=Path, help="new folder for the backup")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    given = parser.parse_args(arguments)

    def back_it_up(settings: LedgerSettings) -> str:
        verifiers = load_keys(settings).verifiers
        manifest, checked = back_up(sqlite_file(settings), verifiers, given.folder, SystemClock())
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
        "Puts a backup in place, where there is no database now. The service must not run. "
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
    given = parser.parse_args(arguments)
    return _run(given.config, lambda settings: _restore(settings, given.folder, given.accept_size))


def run_restore_check(arguments: list[str]) -> int:
    """Compare a database, restored by whatever means, with what was signed and cosigned."""
    parser = _parser(
        "restore-check",
        "Verifies everything stored, and says whether the ledger would sign with it: whether it "
        "has all that was signed for and that witnesses have cosigned. Changes nothing.",
    )
    given = parser.parse_args(arguments)

    def compare(settings: LedgerSettings) -> str:
        keys = load_keys(settings)
        with contextlib.closing(_database(settings).open_for_reading()) as reading:
            checked = check(reading, keys.verifiers)
            size, root = checked.checkpoint.size, checked.checkpoint.root
            safeguards = safeguards_of(settings, alone=False)
            with contextlib.closing(safeguards.open_last_signed()) as store:
                _compare(store.read(), store, size, root, reading, _cosigned(settings, keys))
        return f"COMPLETE: {size} entries, and nothing beyond was signed or cosigned\n"

    return _run(given.config, compare)


def run_adopt(arguments: list[str]) -> int:
    """Begin the record of the last signature for a log that has none."""
    parser = _parser(
        "adopt",
        "Records the stored checkpoint as the one that was signed last, where no record of it "
        "is. Only for whoever knows that nothing beyond it was ever signed; the service must not "
        "run.",
    )
    parser.add_argument(
        "--size",
        type=int,
        required=True,
        help="how many entries the log has, to be sure it is this one",
    )
    given = parser.parse_args(arguments)
    return _run(given.config, lambda settings: _adopt(settings, given.size))


def _restore(settings: LedgerSettings, folder: Path, accepted: int | None) -> str:
    keys, database = load_keys(settings), sqlite_file(settings)
    if database.exists():
        raise Refused(f"{database} is there: move it away first, and keep it")
    manifest = Manifest.read(folder)
    if manifest.origin != keys.origin:
        raise Refused(f"the backup is of the log {manifest.origin}, not of {keys.origin}")
    if accepted is not None and accepted != manifest.size:
        raise Refused(f"the backup has {manifest.size} entries, not {accepted}")
    safeguards = safeguards_of(settings)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(safeguards.open_last_signed()))
        copy = stack.enter_context(unpacked(folder, manifest, database))
        checked = verified(copy, keys.verifiers)
        size, root = checked.checkpoint.size, checked.checkpoint.root
        reading = stack.enter_context(contextlib.closing(SqliteDatabase(copy).open_for_reading()))
        held = (size, root.hex(), reading.head().checkpoint)
        if held != (manifest.size, manifest.root, manifest.checkpoint):
            raise Refused("the backup's database is not of the checkpoint that its manifest has")
        try:
            _compare(store.read(), store, size, root, reading, _cosigned(settings, keys))
            end = None
        except SigningRefused as refusal:
            if refusal.reason == "LEDGER_FORKED":
                raise
            if accepted is None:
                _refuse_old(refusal, size)
            end = _end(store, keys.origin, size, root, reading, refusal)
        put_in_place(copy, database)
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


def _adopt(settings: LedgerSettings, expected: int) -> str:
    keys, safeguards = load_keys(settings), safeguards_of(settings)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(safeguards.open_last_signed()))
        try:
            last = store.read()
        except RecordDamaged as damage:
            raise Refused(f"{damage.message}. Move it away, and keep it") from damage
        if last is not None:
            raise Refused(f"{store.where} says already that {last.size} entries were signed for")
        reading = stack.enter_context(contextlib.closing(_database(settings).open_for_reading()))
        checkpoint = check(reading, keys.verifiers).checkpoint
        if checkpoint.size != expected:
            raise Refused(f"the database has {checkpoint.size} entries, not {expected}")
        compare_with_witnesses(checkpoint.size, _cosigned(settings, keys))
        peaks = followed(
            Signed(keys.origin), checkpoint.size, checkpoint.root, reading.leaves, store.where
        )
        time_us = int(SystemClock().now().timestamp() * 1_000_000)
        record = Signed(
            keys.origin, checkpoint.size, checkpoint.root, time_us, peaks.hashes, keys.vkeys
        )
        store.swap(None, record)
        return (
            f"ADOPTED: {checkpoint.size} entries are what was signed for last, by {store.where}\n"
        )


def _compare(
    last: Signed | None,
    store: LastSigned,
    size: int,
    root: bytes,
    reading: Reading,
    cosigned: Mapping[str, int],
) -> None:
    """Raise SigningRefused unless the database has all that was signed for and cosigned."""
    if last is None:
        raise SigningRefused(
            "LAST_SIGNED_MISSING",
            f"{store.where} does not say how many entries were signed for last: there may be more "
            f"than the {size} here. Put the record in its place",
        )
    if last.ended:
        raise SigningRefused("LOG_ENDED", last.ended)
    followed(last, size, root, reading.leaves, store.where)
    compare_with_witnesses(size, cosigned)


def _cosigned(settings: LedgerSettings, keys: LogKeys) -> Mapping[str, int]:
    """Ask the witnesses, if any are configured."""

    async def ask() -> Mapping[str, int]:
        async with configured(settings.witnessing, keys) as witnesses:
            return {} if witnesses is None else await witnesses.sizes()

    return asyncio.run(ask())


def _database(settings: LedgerSettings) -> SqliteDatabase | PostgresDatabase:
    return database_of(settings)


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
