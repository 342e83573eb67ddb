"""Before the first signature after a start: what witnesses know, what they do not say, and who decides."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from ledger.last_signed import beside
from ledger.log import OpenLog, opened
from ledger.sequencer import Placed
from ledger.sqlite_storage import SqliteDatabase, SqliteStorage
from ledger.upkeep import run_adopt, run_backup, run_restore, run_restore_check
from shared.errors import Unavailable
from support.feeding import ScriptedWitness, cosign
from support.ledgers import (
    SIGNER,
    LedgerProcess,
    assert_whole,
    complete,
    decided,
    new_log,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from support.waiting import until
from support.witnesses_around import COSIGNERS, Around

pytestmark = [pytest.mark.fault, pytest.mark.promise(4)]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return new_log(tmp_path).path


@pytest.fixture(name="around")
def _around(tmp_path: Path) -> Around:
    folder = tmp_path / "around"
    folder.mkdir()
    return Around(folder)


async def append(log: OpenLog, *numbers: int) -> list[Placed]:
    return await log.sequencer.append(complete(*(decided(number) for number in numbers)))


async def grow(path: Path, *numbers: int) -> None:
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        await append(log, *numbers)


async def shown_to(around: Around, path: Path, *names: str) -> None:
    """These witnesses cosign what is stored now."""
    async with around.there(*names), around.log(path) as log:
        assert log.guard.obstacle() is None


def is_there(path: Path) -> bool:
    return path.exists()


def remove(path: Path) -> None:
    path.unlink()


async def assert_refuses(log: OpenLog, reason: str) -> str:
    """Nothing is signed, what is stored can be read; gives the alarm's text."""
    obstacle = log.guard.obstacle()
    assert obstacle is not None
    assert obstacle.reason == reason
    assert not log.sequencer.writable
    with pytest.raises(Unavailable) as refused:
        await append(log, 1_000_000)
    assert refused.value.reason == "LEDGER_REFUSES_TO_SIGN"
    if log.sequencer.published.size:
        await log.archive.entry(0)
    return obstacle.message


def keep(path: Path, folder: Path) -> Callable[[], None]:
    """Copies database and record; gives what puts them back."""
    folder.mkdir()
    for one in (path, beside(path)):
        shutil.copy(one, folder / one.name)

    def put_back() -> None:
        for one in (path, beside(path)):
            shutil.copy(folder / one.name, one)

    return put_back


async def test_witness_that_is_ahead_stops_a_restored_copy(
    path: Path, around: Around, tmp_path: Path
) -> None:
    """Database and record come back together; the record vouches for nothing then."""
    await grow(path, 1, 2, 3)
    restore = keep(path, tmp_path / "yesterday")
    await grow(path, 4, 5)
    await shown_to(around, path, "w2")
    restore()
    async with around.there("w1", "w2"), around.log(path) as log:
        message = await assert_refuses(log, "LEDGER_BEHIND_WITNESS")
    assert "w2 has cosigned more of this log than the 3 entries here" in message
    assert "our own key has signed" in message
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 3


@pytest.mark.parametrize("more", [(4,), (4, 5)])
async def test_witness_with_another_tree_stops_a_fork(
    path: Path, around: Around, tmp_path: Path, more: tuple[int, ...]
) -> None:
    """Two machines went on from one copy, each with its record; the witness saw the other one."""
    await grow(path, 1, 2, 3)
    twin = tmp_path / "twin" / path.name
    keep(path, twin.parent)
    await grow(twin, 14)
    await shown_to(around, twin, "w3")
    await grow(path, *more)
    async with around.there("w1", "w2", "w3"), around.log(path) as log:
        message = await assert_refuses(log, "LEDGER_FORKED_FROM_WITNESS")
    assert "w3 has cosigned another tree of this log" in message
    assert "our own key has signed" in message
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 3 + len(more)


async def test_kept_line_of_a_witness_speaks_for_it(
    path: Path, around: Around, tmp_path: Path
) -> None:
    """The file with the newest cosigned checkpoint did not come back with the others."""
    await grow(path, 1, 2, 3)
    restore = keep(path, tmp_path / "yesterday")
    await grow(path, 4)
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        published = log.sequencer.published
    line = COSIGNERS["w1"].cosign(published.checkpoint, 1)
    (around.folder / "cosigned").write_text(published.note + line)
    restore()
    async with around.log(path) as log:
        message = await assert_refuses(log, "LEDGER_BEHIND_WITNESS")
    assert "keeps its line on 4 entries" in message


async def test_silent_witnesses_do_not_hold_up_an_ordinary_start(
    path: Path, around: Around
) -> None:
    """The record, which is in no backup, vouches for the database."""
    await grow(path, 1)
    await shown_to(around, path, "w1", "w2", "w3")
    async with around.log(path) as log:
        assert log.guard.obstacle() is None
        await append(log, 2)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 2


async def test_old_database_under_its_record_is_refused_whatever_witnesses_say(
    path: Path, around: Around, tmp_path: Path
) -> None:
    await grow(path, 1, 2, 3)
    shutil.copy(path, tmp_path / "yesterday")
    await grow(path, 4, 5)
    shutil.copy(tmp_path / "yesterday", path)
    async with around.log(path) as log:
        await assert_refuses(log, "LEDGER_BEHIND_LAST_SIGNED")


async def test_log_begun_anew_under_an_old_key_waits_for_witnesses_and_learns_of_the_old_one(
    path: Path, around: Around, tmp_path: Path
) -> None:
    """Database and record are lost, and somebody lets the program begin a log where none is."""
    await grow(path, 1, 2)
    await shown_to(around, path, "w1", "w2", "w3")
    anew = tmp_path / "anew"
    anew.mkdir()
    empty = new_log(anew).path
    for names in ((), ("w1",)):  # w1 is ahead as well; without a second start it would be too late
        async with around.there(*names), around.log(empty) as log:
            reason = "LEDGER_BEHIND_WITNESS" if names else "WITNESSES_SILENT"
            await assert_refuses(log, reason)
    # Stopped and started again, it has not come to believe itself.
    async with around.log(empty) as log:
        await assert_refuses(log, "WITNESSES_SILENT")
    assert assert_whole(SqliteDatabase(empty)).checkpoint.size == 0


async def test_new_log_signs_by_itself_as_soon_as_enough_witnesses_have_answered(
    path: Path, around: Around
) -> None:
    """One of three says nothing of what the other two may have made a quorum for; two do."""
    is_there = False

    def answer(body: bytes) -> web.Response | bytes:
        return cosign(body, COSIGNERS["w2"]) if is_there else web.Response(status=503)

    async with (
        ScriptedWitness(answer).serving() as url,
        around.there("w1", w2=url),
        around.log(path) as log,
    ):
        told: list[bool] = []
        log.sequencer.on_writable = told.append
        message = await assert_refuses(log, "WITNESSES_SILENT")
        assert "does not know of any signature" in message
        assert "w2: status 503" in message
        is_there = True

        async def signs() -> bool:
            return told == [True]

        await until(signs)
        await append(log, 1)
    async with around.log(path) as log:  # from now on there is a record
        await append(log, 2)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 2


async def test_record_that_is_far_behind_does_not_vouch(
    path: Path, around: Around, tmp_path: Path
) -> None:
    """Both were restored, from backups of different days: neither need be the newest."""
    await grow(path, 1)
    shutil.copy(beside(path), tmp_path / "older")
    for start in (2, 1002):
        await grow(path, *range(start, start + 1000))
    shutil.copy(tmp_path / "older", beside(path))
    for _ in range(2):
        async with around.log(path) as log:
            message = await assert_refuses(log, "WITNESSES_SILENT")
            assert "2000 entries behind the database" in message
    async with around.there("w1", "w2"), around.log(path) as log:
        await append(log, 5000)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 2002


async def test_who_wants_witnesses_heard_always_waits_for_them_always(
    path: Path, around: Around, tmp_path: Path
) -> None:
    """A snapshot of the whole machine brings database and record back together."""
    await grow(path, 1, 2, 3)
    restore = keep(path, tmp_path / "yesterday")
    await grow(path, 4, 5)
    await shown_to(around, path, "w1", "w2")
    restore()
    async with around.log(path, "always") as log:
        message = await assert_refuses(log, "WITNESSES_SILENT")
        assert "heard_at_start is always" in message
    async with around.there("w1", "w2"), around.log(path, "always") as log:
        await assert_refuses(log, "LEDGER_BEHIND_WITNESS")


@pytest.fixture(name="config")
def _config(path: Path, around: Around, nats_server: NatsUnderTest) -> Path:
    """A configuration of the log, with its witnesses."""
    config = write_settings(path.parent, nats_server)
    with config.open("a") as file:
        file.write(
            f'[witnessing]\npolicy = "{around.folder / "ledger.policy"}"\n'
            f'cosigned_checkpoint = "{around.folder / "cosigned"}"\ntimeout_s = 10\n'
        )
    return config


Say = Callable[..., tuple[int, str]]


@pytest.fixture(name="say")
def _say(config: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command with the configuration; gives its exit code and what it says."""

    def say(command: Callable[[list[str]], int], *more: object) -> tuple[int, str]:
        code = command([str(config), *map(str, more)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return say


async def test_restore_with_silent_witnesses_has_to_be_named(
    path: Path, around: Around, tmp_path: Path, say: Say
) -> None:
    await grow(path, 1, 2, 3)
    await shown_to(around, path, "w1", "w2")
    backup = tmp_path / "backup"
    assert (await asyncio.to_thread(say, run_backup, backup))[0] == 0
    code, said = await asyncio.to_thread(say, run_restore_check)
    assert (code, "too few witnesses" in said) == (1, True)
    remove(path)
    for more in ((), ("--accept-size", 3)):
        code, said = await asyncio.to_thread(say, run_restore, backup, *more)
        assert (code, "--without-witnesses" in said) == (1, True)
        assert not is_there(path)
    async with around.there("w1", "w2"):
        assert (await asyncio.to_thread(say, run_restore, backup))[0] == 0
        assert (await asyncio.to_thread(say, run_restore_check))[0] == 0
    code, _ = await asyncio.to_thread(say, run_restore_check, "--without-witnesses")
    assert code == 0
    remove(path)
    code, said = await asyncio.to_thread(say, run_restore, backup, "--without-witnesses")
    assert (code, said[:9]) == (0, "RESTORED:")
    async with around.log(path) as log:
        await append(log, 4)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 4


async def test_restore_never_overrules_a_witness_that_has_another_tree(
    path: Path, around: Around, tmp_path: Path, say: Say
) -> None:
    await grow(path, 1)
    twin = tmp_path / "twin" / path.name
    keep(path, twin.parent)
    await grow(twin, 14)
    await shown_to(around, twin, "w1")
    await grow(path, 2)
    backup = tmp_path / "backup"
    assert (await asyncio.to_thread(say, run_backup, backup))[0] == 0
    remove(path)
    async with around.there("w1", "w2"):
        for more in ((), ("--without-witnesses",), ("--accept-size", 2)):
            code, said = await asyncio.to_thread(say, run_restore, backup, *more)
            assert (code, "w1 has cosigned another tree" in said) == (1, True)
            assert not is_there(path)


async def test_adoption_asks_the_witnesses_or_has_to_be_named(
    path: Path, around: Around, say: Say
) -> None:
    await grow(path, 1, 2)
    beside(path).unlink()
    code, said = await asyncio.to_thread(say, run_adopt, "--size", 2)
    assert (code, "too few witnesses" in said) == (1, True)
    adopt = run_adopt, "--size", 2, "--without-witnesses"
    assert (await asyncio.to_thread(say, *adopt))[0] == 0
    async with around.log(path) as log:
        await append(log, 3)


async def test_new_log_is_begun_without_witnesses_by_name(
    path: Path, around: Around, say: Say
) -> None:
    async with around.log(path) as log:
        await assert_refuses(log, "WITNESSES_SILENT")
    adopt = run_adopt, "--size", 0, "--without-witnesses"
    assert (await asyncio.to_thread(say, *adopt))[0] == 0
    async with around.log(path) as log:
        await append(log, 1)


async def test_program_serves_readers_while_it_waits_for_witnesses(
    config: Path, around: Around
) -> None:
    """The real process, on a new log: it listens, says why it does not sign, and ends when told."""
    process = LedgerProcess(config)
    await process.start()
    assert process.stop() == 0
    said = config.with_name("ledger.log").read_text()
    assert "WITNESSES_SILENT" in said
