"""What would be a second history ends in a refusal to sign, whatever happened to disk, memory or clock."""

import asyncio
import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.last_signed import SLOT_BYTES, FileLastSigned, Signed, SigningRefused, beside
from ledger.log import OpenLog, Safeguards, begin_log, opened
from ledger.sequencer import Placed
from ledger.sqlite_storage import SqliteDatabase, SqliteStorage
from shared.errors import NotReady, Unavailable
from support.clocks import ClockThatStandsStill
from support.ledgers import SIGNER, assert_whole, complete, decided, new_log
from support.waiting import WAIT_S_MAX
from tlog.checkpoint import open_checkpoint

pytestmark = [pytest.mark.fault, pytest.mark.promise(4)]

FIRST_SLOT = 100
SECOND_SLOT = SLOT_BYTES + 100


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return new_log(tmp_path).path


async def append(log: OpenLog, *numbers: int) -> list[Placed]:
    return await log.sequencer.append(complete(*(decided(number) for number in numbers)))


async def grow(path: Path, *numbers: int) -> str:
    """Appends, in a process of its own so to speak; gives the last checkpoint."""
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        await append(log, *numbers)
        return log.sequencer.published.note


def guarded(path: Path, **others: object) -> Safeguards:
    """Safeguards with the record beside this database."""
    return Safeguards(lambda: FileLastSigned.open(beside(path)), **others)  # type: ignore[arg-type]


def read_record(path: Path) -> Signed:
    store = FileLastSigned.open(beside(path))
    try:
        found = store.read()
    finally:
        store.close()
    assert found is not None
    return found


async def assert_refuses(path: Path, reason: str, safeguards: Safeguards | None = None) -> str:
    """Opens it: nothing is signed, and what is stored can still be read. Gives the alarm's text."""
    async with opened(SqliteStorage.open(path), SIGNER, safeguards=safeguards) as log:
        assert log.guard.refused is not None
        assert log.guard.refused.reason == reason
        assert not log.sequencer.writable
        before = log.sequencer.published
        with pytest.raises(Unavailable) as refused:
            await append(log, 1_000_000)
        assert refused.value.reason == "LEDGER_REFUSES_TO_SIGN"
        assert log.sequencer.published is before
        _, _, proof = await log.archive.inclusion_proof(0, 0)
        assert before.note in proof
        message = log.guard.refused.message
    assert assert_whole(SqliteDatabase(path)).checkpoint == before.checkpoint
    return message


async def assert_not_opened(path: Path, reason: str) -> str:
    """Not even what is stored is shown. Gives what is said."""
    with pytest.raises(NotReady) as refused:
        async with opened(SqliteStorage.open(path), SIGNER):
            pass
    assert refused.value.reason == reason
    return refused.value.message


async def test_every_signature_is_remembered(path: Path) -> None:
    for numbers in ((1,), range(2, 300), (300, 301)):
        checkpoint = open_checkpoint(await grow(path, *numbers), SIGNER.verifier)
        last = read_record(path)
        assert (last.origin, last.size, last.root) == (
            checkpoint.origin,
            checkpoint.size,
            checkpoint.root,
        )
    assert_whole(SqliteDatabase(path))


async def test_restored_backup_does_not_sign(path: Path, tmp_path: Path) -> None:
    await grow(path, 1, 2, 3)
    shutil.copy(path, tmp_path / "yesterday")
    await grow(path, 4, 5)
    shutil.copy(tmp_path / "yesterday", path)
    message = await assert_refuses(path, "LEDGER_BEHIND_LAST_SIGNED")
    assert "has 3 entries, and a checkpoint of 5 was signed" in message
    assert "runbook" in message


async def test_what_a_witness_says_later_stops_the_signing(path: Path) -> None:
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        told: list[bool] = []
        log.sequencer.on_writable = told.append
        await append(log, 1)
        log.sequencer.refuse_to_sign(SigningRefused("LEDGER_BEHIND_WITNESS", "w1 is ahead"))
        with pytest.raises(Unavailable, match="refuses to sign"):
            await append(log, 2)
        assert told == [False]
        (known,) = await append(log, 1)
        assert known.existing
        assert told == [False]
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 1


@pytest.mark.parametrize("more", [(14, 15), (14, 15, 16)])
async def test_another_history_is_not_even_opened(
    path: Path, tmp_path: Path, more: tuple[int, ...]
) -> None:
    """Two machines went on from one backup; the record is that of the first."""
    await grow(path, 1, 2, 3)
    shutil.copytree(path.parent, tmp_path / "twin")
    twin = tmp_path / "twin" / path.name
    await grow(path, 4, 5)
    await grow(twin, *more)
    shutil.copy(twin, path)
    message = await assert_not_opened(path, "LEDGER_FORKED")
    assert "another history" in message


async def test_second_writer_on_a_copy_is_refused_at_its_start(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "copy")
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        await append(log, 1)
        with pytest.raises(NotReady) as refused:
            async with opened(
                SqliteStorage.open(tmp_path / "copy"), SIGNER, safeguards=guarded(path)
            ):
                pass
        assert refused.value.reason == "LAST_SIGNED_LOCKED"
        await append(log, 2)
    assert_whole(SqliteDatabase(path))


async def test_second_writer_that_shares_the_record_does_not_sign(
    path: Path, tmp_path: Path
) -> None:
    shared = Safeguards(lambda: FileLastSigned.open(beside(path), alone=False))
    copy = tmp_path / "copy"
    shutil.copy(path, copy)
    async with (
        opened(SqliteStorage.open(path), SIGNER, safeguards=shared) as first,
        opened(SqliteStorage.open(copy), SIGNER, safeguards=shared) as second,
    ):
        await append(first, 1)
        with pytest.raises(Unavailable) as refused:
            await append(second, 2)
        assert refused.value.reason == "LEDGER_REFUSES_TO_SIGN"
        assert second.guard.refused is not None
        assert second.guard.refused.reason == "SIGNED_ELSEWHERE"
        await append(first, 3)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 2
    assert assert_whole(SqliteDatabase(copy)).checkpoint.size == 0


async def test_clock_that_goes_back_an_hour_stops_the_signing_for_an_hour(path: Path) -> None:
    clock = ClockThatStandsStill()
    async with opened(
        SqliteStorage.open(path), SIGNER, safeguards=guarded(path, clock=clock)
    ) as log:
        told: list[bool] = []
        log.sequencer.on_writable = told.append
        await append(log, 1)
        clock.advance(hours=-1)
        with pytest.raises(Unavailable) as refused:
            await append(log, 2)
        assert refused.value.reason == "LEDGER_REFUSES_TO_SIGN"
        clock.advance(hours=1, seconds=-1)  # as when a time server corrects by less than a step
        (placed,) = await append(log, 2)
        assert placed.index == 1
        assert told == [False, True]
        latest = log.guard.last.time_us
    assert (
        latest == read_record(path).time_us == int(ClockThatStandsStill().now().timestamp() * 1e6)
    )
    clock.advance(hours=-1)
    async with opened(
        SqliteStorage.open(path), SIGNER, safeguards=guarded(path, clock=clock)
    ) as log:
        assert not log.sequencer.writable
        obstacle = log.guard.obstacle()
        assert obstacle is not None
        assert obstacle.reason == "CLOCK_WENT_BACK"
        assert "3601 s before the last signature" in obstacle.message
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 2


async def test_bit_that_flips_in_memory_is_not_signed(path: Path) -> None:
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        await append(log, 1, 2, 3)
        note = log.sequencer.published.note
        row = log.sequencer.published.edge.partial_tiles[0].rows[0]
        row[2] = bytes([row[2][0] ^ 1]) + row[2][1:]
        with pytest.raises(Unavailable) as refused:
            await append(log, 4)
        assert refused.value.reason == "LEDGER_REFUSES_TO_SIGN"
        assert log.guard.refused is not None
        assert log.guard.refused.reason == "LEDGER_HASHES_DISAGREE"
        assert log.sequencer.published.note == note
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 3
    await grow(path, 4)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 4


async def test_missing_record_is_not_begun_anew(path: Path) -> None:
    await grow(path, 1)
    beside(path).unlink()
    message = await assert_refuses(path, "LAST_SIGNED_MISSING")
    assert "adopt" in message


async def test_record_of_another_log_is_refused(path: Path) -> None:
    beside(path).unlink(missing_ok=True)
    store = FileLastSigned.open(beside(path))
    store.swap(None, Signed("ledger.example/other"))
    store.close()
    await assert_not_opened(path, "LAST_SIGNED_OF_ANOTHER")


async def test_lost_database_is_not_begun_anew(path: Path) -> None:
    await grow(path, 1, 2)
    await asyncio.to_thread(path.unlink)
    with pytest.raises(NotReady, match="2 entries were signed for") as refused:
        begin_log(SqliteDatabase(path), SIGNER)
    assert refused.value.reason == "LEDGER_MISSING"


async def test_log_that_has_ended_signs_nothing_more(path: Path) -> None:
    await grow(path, 1, 2)
    store = FileLastSigned.open(beside(path))
    last = store.read()
    assert last is not None
    store.swap(last, replace(last, ended="a backup was restored by hand"))
    store.close()
    assert await assert_refuses(path, "LOG_ENDED") == "a backup was restored by hand"


class RecordThatFails(FileLastSigned):
    """Is kept or lost, and reported as lost, at the swap to a size."""

    fails_at = 2
    keeps = False

    def swap(self, old: Signed | None, new: Signed) -> None:
        fails = new.size == self.fails_at
        if not fails or self.keeps:
            super().swap(old, new)
        if fails:
            raise OSError(errno.EIO, "Input/output error")


class RecordThatIsKeptButFails(RecordThatFails):
    """Is durable, and reported as lost."""

    keeps = True


@pytest.mark.promise(1)
@pytest.mark.parametrize("store", [RecordThatFails, RecordThatIsKeptButFails])
async def test_record_that_may_be_lost_ends_the_process_and_the_next_one_goes_on(
    path: Path, store: type[RecordThatFails]
) -> None:
    failing = Safeguards(lambda: store.open(beside(path)))
    async with opened(SqliteStorage.open(path), SIGNER, safeguards=failing) as log:
        (first,) = await append(log, 1)
        with pytest.raises(Unavailable) as refused:
            await append(log, 2)
        assert refused.value.reason == "LEDGER_STOPPED"
        await asyncio.wait_for(log.sequencer.ended.wait(), WAIT_S_MAX)
        assert log.sequencer.published.size == 1  # what may not be remembered is not let out
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == 2
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        assert log.guard.last.size == 2
        again = await append(log, 1, 2)
        assert [(one.index, one.existing) for one in again] == [(0, True), (1, True)]
        assert again[0].leaf == first.leaf
        await append(log, 3)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == read_record(path).size == 3


async def test_record_that_a_crash_left_half_written_is_written_again(path: Path) -> None:
    """The commit came first: the database is one batch ahead of the record that is whole."""
    failing = Safeguards(lambda: RecordThatFails.open(beside(path)))
    async with opened(SqliteStorage.open(path), SIGNER, safeguards=failing) as log:
        await append(log, 1)
        with pytest.raises(Unavailable):
            await append(log, 2)
    flip(beside(path), FIRST_SLOT)  # the slot in which record 2 would be
    await grow(path, 3)
    assert assert_whole(SqliteDatabase(path)).checkpoint.size == read_record(path).size == 3


async def test_flipped_bit_in_the_record_stops_the_signing(path: Path, tmp_path: Path) -> None:
    await grow(path, 1)
    shutil.copy(path, tmp_path / "yesterday")
    await grow(path, 2)
    # In the older record: whether it was the newest, nobody can know.
    flip(beside(path), FIRST_SLOT)
    message = await assert_refuses(path, "LAST_SIGNED_DAMAGED")
    assert "cannot be trusted" in message
    # In the newest: the older one must not vouch for the database of its time.
    flip(beside(path), FIRST_SLOT)
    flip(beside(path), SECOND_SLOT)
    shutil.copy(tmp_path / "yesterday", path)
    await assert_refuses(path, "LAST_SIGNED_DAMAGED")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
