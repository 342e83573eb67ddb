"""The ledger's process is killed while many appends are under way: nothing acknowledged is lost."""

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.sqlite_storage import SqliteDatabase
from shared.bus import Bus
from support.appenders import Appenders
from support.ledgers import LedgerProcess, assert_whole, run_program, write_settings
from support.nats_servers import NatsUnderTest
from support.waiting import until

pytestmark = [
    pytest.mark.fault,
    pytest.mark.promise(1),
    pytest.mark.promise(8),
    pytest.mark.timeout(3600),
]

APPENDERS = 24
SEED = 20201113
ROUNDS_OF_A_LOG = 10
"""Then another is begun: each round verifies the whole log, which is larger after each."""


async def test_nothing_acknowledged_is_lost_when_the_ledger_is_killed(
    tmp_path: Path, nats_server: NatsUnderTest, fault_rounds: int, tell: Callable[[str], None]
) -> None:
    for start in range(0, fault_rounds + 1, ROUNDS_OF_A_LOG):
        folder = tmp_path / f"log-{start}"
        folder.mkdir()
        process = LedgerProcess(write_settings(folder, nats_server))
        broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
        try:
            rounds = min(ROUNDS_OF_A_LOG, fault_rounds + 1 - start)
            tell(f"killed {start} times of {fault_rounds + 1}")
            appenders = await killed_again_and_again(process, broker, rounds, SEED + start)
            await everything_is_as_acknowledged(process, appenders)
            assert process.stop() == 0
        finally:
            process.kill()
            await broker.close()
        assert assert_whole(process.database).checkpoint.size == len(appenders.asked)


async def killed_again_and_again(
    process: LedgerProcess, broker: Bus, rounds: int, seed: int
) -> Appenders:
    chance = random.Random(seed)
    appenders = Appenders(broker)
    checking: asyncio.Task[None] | None = None
    for round_ in range(rounds):
        await process.start()
        appenders.stopped = False
        running = [asyncio.create_task(appenders.run()) for _ in range(APPENDERS)]
        enough = len(appenders.acknowledged) + chance.randrange(100, 500)

        async def reached(enough: int = enough) -> bool:
            return len(appenders.acknowledged) >= enough

        await until(reached)
        process.kill()
        appenders.stopped = True
        left = copied(process.database, process.config.with_name(f"left-{round_}"))
        await asyncio.gather(*running)
        if checking is not None:
            await checking
        # Beside the next start, of which most is waiting: what the kill left, before anybody mended it.
        size = len(appenders.acknowledged)
        checking = asyncio.create_task(holds(left, size, f"{seed=} {round_=}"))
    if checking is not None:
        await checking
    return appenders


def copied(database: SqliteDatabase, folder: Path) -> SqliteDatabase:
    """The log's files, and those of the keys, as they are now."""
    path = database.path

    def others(inside: str, names: list[str]) -> list[str]:
        ours = Path(inside) != path.parent
        return [name for name in names if not ours and not name.startswith(path.name)]

    shutil.copytree(path.parent, folder, ignore=others)
    return SqliteDatabase(folder / path.name)


async def holds(left: SqliteDatabase, acknowledged: int, when: str) -> None:
    """Everything is whole, and has everything that was acknowledged."""
    checked = await asyncio.to_thread(assert_whole, left)
    assert checked.checkpoint.size >= acknowledged, when
    shutil.rmtree(left.path.parent)


async def everything_is_as_acknowledged(process: LedgerProcess, appenders: Appenders) -> None:
    """Asked again, the ledger gives each entry that it acknowledged before it was killed."""
    await process.start()
    numbers = sorted(appenders.asked)
    answers = await appenders.all_surely(numbers)
    for number, again in zip(numbers, answers, strict=True):
        before = appenders.acknowledged.get(number)
        if before is not None:
            assert again.existing
            assert again.receipt.leaf == before.receipt.leaf
            assert again.receipt.index == before.receipt.index


async def test_second_process_says_why_it_does_not_start(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    process = LedgerProcess(config)
    try:
        await process.start()
        second = await asyncio.to_thread(run_program, config)
        assert second.returncode == 1
        assert "LEDGER_LOCKED" in second.stderr
        assert "another process has the ledger open" in second.stderr
        checked = await asyncio.to_thread(run_program, "check", config)
        assert (checked.returncode, checked.stdout[:6]) == (0, "WHOLE:")
        assert process.stop() == 0
    finally:
        process.kill()


async def test_damaged_file_is_not_started_from(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    config = write_settings(tmp_path, nats_server)
    process = LedgerProcess(config)
    broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    try:
        await process.start()
        appended = await Appenders(broker).append_surely(1)
        assert process.stop() == 0
    finally:
        process.kill()
        await broker.close()
    content = bytearray(process.database.path.read_bytes())
    content[content.index(appended.receipt.leaf) + 20] ^= 1
    process.database.path.write_bytes(content)
    checked = await asyncio.to_thread(run_program, "check", config)
    assert checked.returncode == 1
    assert checked.stderr.startswith("FAILED: ")
    started = await asyncio.to_thread(run_program, config)
    assert started.returncode == 1
    assert "LEDGER_DAMAGED" in started.stderr
