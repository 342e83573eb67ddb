"""A standby that lacks a key of the openings does not take over, says which, and may once it has it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.config import LedgerSettings
from ledger.key_provider import FileKeyProvider, place_keys, read_revealed, revealed_keys
from ledger.opening_keys import run_rotate_opening_keys
from shared.bus import Bus
from support.appenders import Appenders
from support.ledgers import LedgerProcess, write_settings
from support.nats_servers import NatsUnderTest
from support.postgres import PostgresUnderTest
from support.waiting import until

pytestmark = [pytest.mark.fault, pytest.mark.promise(5), pytest.mark.timeout(600)]


@dataclass
class Pair:
    """The writer, and a standby with a folder of keys of its own."""

    writer: LedgerProcess
    standby: LedgerProcess
    appenders: Appenders

    def place_keys(self) -> None:
        """As an operator does, with the keys of whoever rotated last."""
        source, target = (
            LedgerSettings.load(one.config).provider_keys for one in (self.writer, self.standby)
        )
        place_keys(read_revealed(revealed_keys(source)), target)


@pytest.fixture(name="pair")
async def _pair(
    tmp_path: Path, nats_server: NatsUnderTest, postgres_database: PostgresUnderTest
) -> AsyncIterator[Pair]:
    processes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = write_settings(tmp_path / name, nats_server, postgres_database)
        config.write_text(config.read_text() + '[openings]\nprovider_keys = "own-keys"\n')
        processes.append(LedgerProcess(config))
    broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    try:
        yield Pair(processes[0], processes[1], Appenders(broker))
    finally:
        for process in processes:
            process.kill()
        await broker.close()


async def test_standby_with_another_key_or_without_the_newest_never_writes(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both were started new, and the second made a key before the first's was there; then it lacks one."""
    FileKeyProvider.create(LedgerSettings.load(pair.standby.config).provider_keys)
    await pair.writer.start()
    before = await pair.appenders.append_surely(0)
    await pair.standby.start()
    await until(lambda: said(pair.standby, b"does not open it here"))
    assert not pair.standby.writes
    pair.place_keys()
    await until(lambda: said(pair.standby, b"has its keys again"))
    rotated = await asyncio.to_thread(run_rotate_opening_keys, [str(pair.writer.config)])
    assert rotated == 0, capsys.readouterr().err
    await until(lambda: said(pair.standby, b"version 2 of the opening keys"))
    pair.writer.kill()
    # While it starts again the lock is free, which the standby would ask for three times a second.
    await pair.writer.start()
    await until(lambda: writes(pair.writer))
    assert not pair.standby.writes
    pair.place_keys()
    await until(lambda: said(pair.standby, b"has its keys again", times=2))
    pair.writer.kill()
    await until(lambda: writes(pair.standby))
    again = await pair.appenders.append_surely(0)
    assert (again.existing, again.receipt.leaf) == (True, before.receipt.leaf)
    assert not (await pair.appenders.append_surely(1)).existing


async def said(process: LedgerProcess, what: bytes, times: int = 1) -> bool:
    return process.said.count(what) >= times


async def writes(process: LedgerProcess) -> bool:
    return process.writes
