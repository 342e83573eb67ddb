"""Starts the ledger, or does something to one by hand: `python -m ledger [COMMAND] CONFIG`."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from countersign.ledger.v1.append_pb2_grpc import add_LedgerAppendServiceServicer_to_server
from countersign.ledger.v1.disclosure_pb2_grpc import (
    add_LedgerDisclosureServiceServicer_to_server,
)
from countersign.ledger.v1.ledger_pb2_grpc import add_LedgerServiceServicer_to_server
from countersign.ledger.v1.query_pb2_grpc import add_LedgerQueryServiceServicer_to_server
from ledger import append_service, disclosure_service, query_service
from ledger.announcing import announcing
from ledger.append_service import LedgerAppendServicer
from ledger.begin import run_begin
from ledger.bus_service import BusService
from ledger.check import CheckFailed, check
from ledger.config import LedgerSettings
from ledger.config_checks import checks
from ledger.disclosing import Disclosing, disclosing
from ledger.documents import DocumentService
from ledger.entry import Completer
from ledger.export_tiles import run_export_tiles
from ledger.feeding import configured
from ledger.from_settings import database_of, load_keys, notes_of, safeguards_of
from ledger.health import Health
from ledger.heartbeat import beating
from ledger.index_process import IndexProcess
from ledger.keys import LogKeys
from ledger.log import OpenLog, Safeguards, begin_log, opened
from ledger.migrate import run_migrate
from ledger.new_key import run_new_key
from ledger.opening_keys import run_rotate_opening_keys
from ledger.openings import Openings, opened_keyring, opened_openings, require_opening_keys
from ledger.place_keys import run_place_opening_keys, run_reveal_opening_keys
from ledger.postgres_storage import PostgresDatabase
from ledger.public_files import public_files
from ledger.querying import indexing, querying, run_reindex
from ledger.reading import StorageFailed
from ledger.reading_doors import READING
from ledger.reconciling import reconciling
from ledger.replica import Replica, replica
from ledger.sequencer import Sequencer
from ledger.service import SERVICE, LedgerServicer
from ledger.sqlite_storage import SqliteDatabase, SqliteStorage
from ledger.standing import standing_by
from ledger.storage import Storage
from ledger.upkeep import run_adopt, run_backup, run_restore, run_restore_check
from ledger.witnessed import WitnessedReceipts
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.errors import NotReady
from shared.identity import SpiffeId
from shared.process import run_process
from shared.rpc import RunningServer, start_server
from shared.settings import SettingsError
from shared.signing import BadKey

GRACE_S = 5.0
SERVICES = (SERVICE, append_service.SERVICE, query_service.SERVICE, disclosure_service.SERVICE)


@dataclass(frozen=True)
class RunningLedger:
    """A ledger that serves."""

    server: RunningServer
    bus: Bus
    sequencer: Sequencer

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""
        return self.sequencer.ended

    @property
    def is_ready(self) -> bool:
        """Whether appends can come, and would be taken."""
        return self.bus.is_connected and self.sequencer.writable


@contextlib.asynccontextmanager
async def running(settings: LedgerSettings) -> AsyncIterator[RunningLedger | Replica]:
    """A ledger, from its settings."""
    keys = load_keys(settings)
    safeguards = safeguards_of(settings)
    database = database_of(settings)
    only_read = isinstance(database, PostgresDatabase) and database.only_read
    if settings.create_if_missing and not only_read and not database.has_log():
        begin_log(database, keys, safeguards.open_last_signed)

    if isinstance(database, SqliteDatabase):
        storage = database.open_for_writing()  # first: it brings an old file to the newest schema
        async with (
            indexing(settings, database, keys.vkeys) as index,
            writing(settings, keys, safeguards, index, storage) as alone,
        ):
            yield alone
        return
    # One index for both parts: who takes over need not wait for it.
    async with indexing(settings, database, keys.vkeys) as index:
        one = Replica(
            database,
            lambda: standing_by(settings, keys, index, database),
            lambda storage: writing(settings, keys, safeguards, index, storage),
            lambda: require_opening_keys(settings),
            only_read=only_read,
        )
        async with replica(one):
            yield one


@contextlib.asynccontextmanager
async def writing(
    settings: LedgerSettings,
    keys: LogKeys,
    safeguards: Safeguards,
    index: IndexProcess,
    storage: Storage,
) -> AsyncIterator[RunningLedger]:
    """The ledger as its only writer."""
    async with contextlib.AsyncExitStack() as stack:
        health = Health()
        witnesses = await stack.enter_async_context(configured(settings.witnessing, keys))
        if witnesses is not None:
            safeguards = replace(safeguards, witnesses=witnesses.at_start)
        log = await stack.enter_async_context(opened(storage, keys, safeguards=safeguards))
        announce = announcing(log, keys, notes_of(settings), settings.trust_domain)
        await stack.enter_async_context(announce)
        openings = stack.enter_context(opened_openings(settings))
        witnessing = None
        if witnesses is not None:
            witnessing = await stack.enter_async_context(witnesses.fed(log, health.tell))
        bus = await stack.enter_async_context(connected(settings.bus, "ledger"))
        witnessed = WitnessedReceipts(log.archive, witnessing)
        servicer = LedgerServicer(log.archive, log.sequencer, keys.vkeys[0], witnessed)
        disclosed = await stack.enter_async_context(disclosing(settings, log, openings, index))
        appends = await _on_bus(settings, log, openings, disclosed, witnessed, storage, bus)
        queries = await stack.enter_async_context(
            querying(settings, index, log, disclosed.finder, openings.sealer)
        )
        buses = [bus]
        if not _has_ended(log):
            # Whatever a connector asks without end keeps the broker waiting less on a connection of its own.
            buses.append(await stack.enter_async_context(connected(settings.bus, "ledger")))
            await stack.enter_async_context(reconciling(settings, log, index, buses[-1]))

        def register(on: grpc.aio.Server) -> None:
            add_LedgerServiceServicer_to_server(servicer, on)
            add_LedgerAppendServiceServicer_to_server(LedgerAppendServicer(appends), on)
            add_LedgerQueryServiceServicer_to_server(queries, on)
            add_LedgerDisclosureServiceServicer_to_server(disclosed.servicer, on)

        server = await start_server(
            register,
            services=SERVICES,
            listen=settings.listen,
            trust_domain=settings.trust_domain,
            access=READING | append_service.ACCESS | disclosure_service.ACCESS,
        )
        stack.push_async_callback(server.stop, GRACE_S)
        health.attach(server)
        log.sequencer.on_writable = lambda writable: health.tell(SERVICE, writable)
        await stack.enter_async_context(public_files(settings, log, keys.verifiers, witnessing))
        if not log.sequencer.writable:
            health.tell(SERVICE, False)
        await stack.enter_async_context(
            beating(settings.heartbeat_s, settings.trust_domain, log.sequencer, witnessing)
        )
        for one in buses:
            ended = asyncio.create_task(_first(one.closed, log.sequencer.ended))
            stack.callback(ended.cancel)
        yield RunningLedger(server, bus, log.sequencer)


async def _on_bus(
    settings: LedgerSettings,
    log: OpenLog,
    openings: Openings,
    disclosed: Disclosing,
    witnessed: WitnessedReceipts,
    storage: Storage,
    bus: Bus,
) -> BusService:
    """Answer the broker and the policy service."""
    fresh = None if isinstance(storage, SqliteStorage) else log.still_writes
    publishing = _completer(settings, "policy", openings, publisher=True)
    documents = DocumentService(
        publishing,
        log.sequencer,
        log.archive,
        disclosed.openings_of,
        fresh,
        None if disclosed.registered is None else disclosed.registered.catch_up,
    )
    await documents.begin()
    appending = _completer(settings, "broker", openings)
    appends = BusService(
        appending, log.sequencer, log.archive, witnessed, fresh, documents.check_newest
    )
    if not _has_ended(log):  # its successor answers on the bus
        await appends.serve(bus)
        await documents.serve(bus)
    return appends


def _completer(
    settings: LedgerSettings, name: str, openings: Openings, *, publisher: bool = False
) -> Completer:
    """For what a service appends. The bus lets only the broker append, and only the policy service publish
    (see the permissions of its users)."""
    service = SpiffeId(settings.trust_domain, "service", name)
    return Completer(str(service), SystemClock(), sealer=openings.sealer, publisher=publisher)


def _has_ended(log: OpenLog) -> bool:
    return log.guard.refused is not None and log.guard.refused.reason == "LOG_ENDED"


async def _first(bus_closed: asyncio.Event, ended: asyncio.Event) -> None:
    """End the process when the bus has closed for good, as when the writer has ended."""
    await bus_closed.wait()
    ended.set()


def run_check(arguments: list[str]) -> int:
    """Check a ledger; may run beside the service. Exit codes: 0 whole, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger check", description="Re-reads and verifies everything stored."
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    try:
        settings = LedgerSettings.load(parser.parse_args(arguments).config)
        verifiers = load_keys(settings).verifiers
        with (
            contextlib.closing(database_of(settings).open_for_reading()) as reading,
            opened_keyring(settings) as keyring,
        ):
            found = check(reading, verifiers, keyring=keyring)
    except (SettingsError, BadKey) as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (NotReady, StorageFailed) as error:
        sys.stderr.write(f"FAILED: {database_of(settings)}: {error}\n")
        return 1
    except CheckFailed as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(
        f"WHOLE: {found.checkpoint.size} entries, {found.tiles} full tiles, {found.openings} openings, "
        f"{found.open_searches} open searches under the signed checkpoint\n"
    )
    return 0


def main() -> None:
    """Entry point of `countersign-ledger`."""
    commands = {
        "adopt": run_adopt,
        "backup": run_backup,
        "begin": run_begin,
        "check": run_check,
        "export-tiles": run_export_tiles,
        "migrate": run_migrate,
        "new-key": run_new_key,
        "place-opening-keys": run_place_opening_keys,
        "reindex": run_reindex,
        "restore": run_restore,
        "reveal-opening-keys": run_reveal_opening_keys,
        "restore-check": run_restore_check,
        "rotate-opening-keys": run_rotate_opening_keys,
    }
    if (command := commands.get("".join(sys.argv[1:2]))) is not None:
        sys.exit(command(sys.argv[2:]))
    described = (
        "Keeps the log of entries. By hand, each with --help of its own: countersign-ledger "
        f"{', '.join(sorted(commands))}."
    )
    run_process("ledger", described, LedgerSettings, running, checks)


if __name__ == "__main__":
    main()
