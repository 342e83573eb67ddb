"""A primary that is lost and its standby promoted, and connections over TLS: with real PostgreSQL servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from countersign.installation.pki import Authority
from ledger.last_signed import FileLastSigned
from ledger.log import OpenLog, Safeguards, begin_log, opened
from ledger.postgres_connection import PostgresSettings
from ledger.postgres_storage import PostgresDatabase
from ledger.reading import StorageFailed
from ledger.sequencer import Placed
from shared.errors import NotReady, Unavailable
from shared.identity import SpiffeId
from shared.settings import SettingsError
from support.ledgers import SIGNER, assert_whole, complete, decided
from support.nats_servers import free_port
from support.postgres import SERVICE, PostgresServer
from support.waiting import until

pytestmark = pytest.mark.fault

NAME = "ledger"
MakeServer = Callable[..., PostgresServer]


@pytest.fixture(name="make")
def _make() -> Iterator[MakeServer]:
    """Makes and starts servers, and removes them at the end."""
    with contextlib.ExitStack() as stack:

        def make(standby_of: PostgresServer | None = None) -> PostgresServer:
            server = PostgresServer(standby_of=standby_of)
            stack.callback(server.remove)
            server.start()
            return server

        yield make


class Pair:
    """A primary and its standby; what was signed last is remembered on neither."""

    def __init__(self, make: MakeServer, folder: Path) -> None:
        self._folder = folder
        self.primary = make()
        self.primary.make_template()
        self.primary.make_database(NAME)
        begin_log(self.on(self.primary), SIGNER, self.open_record)
        self.standby = make(standby_of=self.primary)

    def on(self, server: PostgresServer, *, synchronous: bool = False) -> PostgresDatabase:
        """The log as one of the servers has it."""
        dsn_file = self._folder / f"{server.folder.name}.dsn"
        dsn_file.write_text(server.dsn(SERVICE, NAME))
        return PostgresDatabase(
            PostgresSettings(dsn_file=dsn_file, require_synchronous_standby=synchronous)
        )

    def open_record(self) -> FileLastSigned:
        return FileLastSigned.open(self._folder / "last-signed", alone=False)

    @contextlib.asynccontextmanager
    async def log(
        self, server: PostgresServer, *, synchronous: bool = False
    ) -> AsyncIterator[OpenLog]:
        """The log, written on a server."""
        storage = self.on(server, synchronous=synchronous).open_for_writing()
        safeguards = Safeguards(self.open_record)
        async with opened(storage, SIGNER, safeguards=safeguards) as log:
            yield log

    async def has_all(self) -> None:
        """Waits until the standby has replayed what the primary has."""
        at = self.primary.ask("SELECT pg_current_wal_flush_lsn()")

        async def replayed() -> bool:
            return bool(self.standby.ask(f"SELECT pg_last_wal_replay_lsn() >= '{at}'"))

        await until(replayed)


@pytest.fixture(name="pair")
def _pair(make: MakeServer, tmp_path: Path) -> Pair:
    return Pair(make, tmp_path)


async def append(log: OpenLog, *numbers: int) -> list[Placed]:
    return await log.sequencer.append(complete(*(decided(number) for number in numbers)))


@pytest.mark.promise(1, 8)
async def test_failover_to_a_synchronous_standby_loses_nothing_that_was_acknowledged(
    pair: Pair,
) -> None:
    pair.primary.wait_for_standby()

    async def is_synchronous() -> bool:
        return bool(pair.primary.ask("SELECT sync_state FROM pg_stat_replication") == "sync")

    await until(is_synchronous)
    async with pair.log(pair.primary, synchronous=True) as log:
        acknowledged = [*await append(log, 1, 2), *await append(log, *range(3, 300))]
        # Without the standby nothing is acknowledged: the commit waits for it.
        pair.standby.kill()
        waiting = asyncio.create_task(append(log, 300))

        async def waits() -> bool:
            question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            return bool(pair.primary.ask(question))

        await until(waits)
        assert not waiting.done()
        pair.standby.start()
        acknowledged += await waiting
        pair.primary.kill()
    pair.standby.promote()
    async with pair.log(pair.standby) as log:
        assert log.guard.obstacle() is None
        for one in (acknowledged[0], acknowledged[-1]):
            assert await log.archive.entry(one.index) == one.leaf
        (following,) = await append(log, 1000)
    assert following.index == len(acknowledged) == 300
    assert assert_whole(pair.on(pair.standby)).checkpoint.size == 301


@pytest.mark.promise(4, 8)
async def test_promoted_standby_that_is_behind_does_not_sign(pair: Pair) -> None:
    async with pair.log(pair.primary) as log:
        await append(log, 1, 2, 3)
        await pair.has_all()
        with pytest.raises(NotReady) as refused:
            pair.on(pair.standby).open_for_writing()
        assert refused.value.reason == "LEDGER_STANDBY"
        assert assert_whole(pair.on(pair.standby)).checkpoint.size == 3
        pair.standby.kill()
        await append(log, 4, 5)
        pair.primary.kill()
    pair.standby.start()
    pair.standby.promote()
    async with pair.log(pair.standby) as log:
        obstacle = log.guard.obstacle()
        assert obstacle is not None
        assert obstacle.reason == "LEDGER_BEHIND_LAST_SIGNED"
        with pytest.raises(Unavailable) as unsigned:
            await append(log, 6)
        assert unsigned.value.reason == "LEDGER_REFUSES_TO_SIGN"
        await log.archive.entry(2)
    # The old primary comes back: it has everything, and goes on.
    pair.primary.start()
    async with pair.log(pair.primary) as log:
        await append(log, 6)
    assert assert_whole(pair.on(pair.primary)).checkpoint.size == 6


async def test_connection_over_tls_checks_the_server_and_its_name(
    make: MakeServer, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    authority, stranger = (Authority.create(name, now) for name in ("db.test", "stranger.test"))
    for name, one in (("authority", authority), ("stranger", stranger)):
        (tmp_path / f"{name}.pem").write_bytes(one.certificate_pem)
    issued = authority.issue(SpiffeId("db.test", "service", "database"), now, listens=True)
    server = make()
    server.make_template()
    server.make_database(NAME)
    server.kill()
    port = free_port()
    server.listen_over_tls(port, issued.certificate_pem, issued.key_pem)
    server.start()

    def reached_as(host: str, trusted: str | None, **more: bool) -> PostgresDatabase:
        dsn_file = tmp_path / "tls.dsn"
        dsn_file.write_text(
            f"host={host} hostaddr=127.0.0.1 port={port} user={SERVICE} dbname={NAME}"
        )
        file = None if trusted is None else tmp_path / f"{trusted}.pem"
        return PostgresDatabase(PostgresSettings(dsn_file=dsn_file, authority=file, **more))

    record = Safeguards(lambda: FileLastSigned.open(tmp_path / "last-signed"))
    database = reached_as("localhost", "authority")
    begin_log(database, SIGNER, record.open_last_signed)
    async with opened(database.open_for_writing(), SIGNER, safeguards=record) as log:
        await append(log, 1)
        encrypted = server.ask(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            f" WHERE usename = '{SERVICE}'"
        )
        assert encrypted is True
    assert assert_whole(database).checkpoint.size == 1
    for host, trusted in (("localhost", "stranger"), ("db.example", "authority")):
        with pytest.raises(StorageFailed, match="certificate"):
            reached_as(host, trusted).has_log()
    with pytest.raises(SettingsError, match="without a check of the server's certificate"):
        reached_as("localhost", None).has_log()
    assert reached_as("db.example", None, dangerously_trust_any_server=True).has_log()
