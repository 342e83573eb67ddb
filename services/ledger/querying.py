"""Puts the query index to work in a running ledger: its process, its service, the closing of periods."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import duckdb

from ledger.config import LedgerSettings
from ledger.entry import Completer, Sealer
from ledger.follower import NotAsSigned, follow_once
from ledger.from_settings import database_of, load_keys
from ledger.index import IndexLocked, QueryIndex
from ledger.index_messages import FollowerSettings
from ledger.index_process import IndexProcess, running_index
from ledger.log import OpenLog
from ledger.overdue import DutyWatch
from ledger.periods import PeriodCloser
from ledger.query_service import LedgerQueryServicer, OpeningsFinder
from ledger.reading import StorageFailed
from ledger.storage import Database
from shared.clock import SystemClock
from shared.errors import ServiceError
from shared.identity import SpiffeId
from shared.settings import SettingsError
from shared.signing import BadKey

LENGTHS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
REINDEX_BATCH: Final = 5000


def index_file(settings: LedgerSettings) -> Path:
    """Where the query index lies."""
    if settings.index.file is not None:
        return settings.index.file
    beside = settings.database
    if not isinstance(beside, Path):
        beside = beside.postgres.dsn_file
    return beside.with_name(f"{beside.name}.index.duckdb")


def indexing(
    settings: LedgerSettings, database: Database, vkeys: tuple[str, ...]
) -> contextlib.AbstractAsyncContextManager[IndexProcess]:
    """Keep the query index until the end, by a process that needs nothing but to read."""
    return running_index(
        FollowerSettings(
            index=index_file(settings),
            database=database,
            vkeys=vkeys,
            log_level=settings.telemetry.log_level,
        )
    )


@contextlib.asynccontextmanager
async def querying(
    settings: LedgerSettings,
    index: IndexProcess,
    log: OpenLog,
    openings: OpeningsFinder,
    sealer: Sealer,
) -> AsyncIterator[LedgerQueryServicer]:
    """Answer queries, close periods and count duties, until the end."""
    own = str(SpiffeId(settings.trust_domain, "service", "ledger"))
    clock = SystemClock()
    completer = Completer(own, clock, own=True, sealer=sealer)
    servicer = LedgerQueryServicer(log.archive, log.sequencer, index, completer, openings)
    working = [asyncio.create_task(DutyWatch(log.sequencer, index, clock).run())]
    if settings.index.period != "none":
        closer = PeriodCloser(
            *(log.sequencer, log.archive, index, completer, clock),
            LENGTHS[settings.index.period],
        )
        working.append(asyncio.create_task(closer.run()))
    try:
        yield servicer
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


def run_reindex(arguments: list[str]) -> int:
    """Make the query index anew. Exit codes: 0 done, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger reindex",
        description="Drops the query index and makes it again from the entries. The ledger must not run: "
        "it has the index open, and makes it anew by itself when there is none.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    try:
        settings = LedgerSettings.load(parser.parse_args(arguments).config)
        origin = load_keys(settings).origin
        path = index_file(settings)
        with contextlib.closing(database_of(settings).open_for_reading()) as reading:
            if path.exists():
                # Removed only when nobody has it open.
                QueryIndex.open(path, origin).close()
            with contextlib.closing(QueryIndex.create(path, origin)) as index:
                while follow_once(index, reading, REINDEX_BATCH):
                    pass
                size = index.size
    except (SettingsError, BadKey) as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (StorageFailed, duckdb.Error, ServiceError, NotAsSigned, IndexLocked, OSError) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(f"INDEXED: {size} entries, which come to the signed root, in {path}\n")
    return 0
