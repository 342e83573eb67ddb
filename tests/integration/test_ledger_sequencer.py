"""The sequencer on a real database: order, durability, idempotency, and each way a write can fail."""

import asyncio
import contextlib

import pytest

from ledger.check import CheckFailed
from ledger.log import opened
from ledger.sequencer import Limits, Placed, Sequencer
from ledger.vault import commitments_of, unsealed
from shared.commitments import commit_to
from shared.errors import NotFound, NotReady, Overloaded, Unavailable
from shared.kinds import KINDS
from support.databases import DatabaseUnderTest
from support.ledgers import (
    SIGNER,
    assert_whole,
    complete,
    decided,
    failed,
    rejected,
)
from support.storages import (
    StorageAround,
    StorageThatCannotInsert,
    StorageThatFlipsABit,
    StorageThatKeepsButFails,
    StorageThatLosesAndFails,
    StorageThatTakesItsTime,
    StorageWithAFullDisk,
)
from support.vaults import KEYRING
from support.waiting import WAIT_S_MAX
from tlog.checkpoint import open_checkpoint
from tlog.merkle import TreeAtSize, verify_consistency
from tlog.proof import TlogProof, verify_receipt


def verified(placed: Placed) -> int:
    """Size of the tree that the receipt proves the entry to be in."""
    index, checkpoint = verify_receipt(placed.leaf, placed.tlog_proof, SIGNER.verifier)
    assert index == placed.index
    return checkpoint.size


async def append(sequencer: Sequencer, *numbers: int) -> list[Placed]:
    return await sequencer.append(complete(*(decided(number) for number in numbers)))


@pytest.mark.promise(1)
async def test_appended_entries_are_in_order_with_receipts_that_verify(
    database: DatabaseUnderTest,
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        placed = await append(log.sequencer, 1, 2, 3)
        assert [one.index for one in placed] == [0, 1, 2]
        assert [verified(one) for one in placed] == [3, 3, 3]
        assert not any(one.existing for one in placed)
        (last,) = await append(log.sequencer, 4)
        assert (last.index, verified(last)) == (3, 4)
    assert assert_whole(database).checkpoint.size == 4


@pytest.mark.promise(1)
async def test_concurrent_appends_lose_and_repeat_nothing(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        many = await asyncio.gather(
            *(append(log.sequencer, *range(n * 3, n * 3 + 3)) for n in range(300))
        )
        placed = [one for request in many for one in request]
        assert sorted(one.index for one in placed) == list(range(900))
        assert all(one.index < verified(one) for one in placed)
    assert assert_whole(database).checkpoint.size == 900


async def test_the_log_goes_on_after_a_restart(database: DatabaseUnderTest) -> None:
    notes = []
    for start in (0, 254, 255, 256, 257, 511, 600):
        async with opened(database.open_for_writing(), SIGNER) as log:
            size = log.sequencer.published.size
            assert size == start
            upto = {0: 254, 254: 255, 255: 256, 256: 257, 257: 511, 511: 600, 600: 601}[start]
            await append(log.sequencer, *range(start, upto))
            notes.append(open_checkpoint(log.sequencer.published.note, SIGNER.verifier))
            for old in notes:
                _, hashes = await log.archive.consistency_proof(old.size, 0)
                verify_consistency(old.size, upto, old.root, notes[-1].root, hashes)
        assert assert_whole(database).checkpoint.size == upto


async def test_same_key_gives_the_same_entry_with_a_newer_receipt(
    database: DatabaseUnderTest,
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        (first,) = await append(log.sequencer, 1)
        await append(log.sequencer, 2)
        again, new, twice = await log.sequencer.append(complete(decided(1), decided(3), decided(3)))
        assert (again.index, again.leaf, again.existing) == (0, first.leaf, True)
        assert (new.index, new.existing) == (2, False)
        assert (twice.index, twice.leaf, twice.existing) == (2, new.leaf, True)
        assert [verified(one) for one in (again, new, twice)] == [3, 3, 3]
        (alone,) = await append(log.sequencer, 2)
        assert (alone.index, alone.existing, verified(alone)) == (1, True, 3)
    assert assert_whole(database).checkpoint.size == 3


async def test_key_is_known_after_a_restart(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        (first,) = await append(log.sequencer, 1)
    async with opened(database.open_for_writing(), SIGNER) as log:
        (again,) = await append(log.sequencer, 1)
        assert (again.index, again.leaf, again.existing) == (0, first.leaf, True)


async def test_entries_without_a_key_are_all_kept(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        placed = await log.sequencer.append(complete(rejected(), rejected()))
        assert [one.index for one in placed] == [0, 1]


@pytest.mark.promise(1)
async def test_caller_that_goes_away_does_not_take_its_entry_back(
    database: DatabaseUnderTest,
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        task = asyncio.create_task(append(log.sequencer, 1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (after,) = await append(log.sequencer, 2)
        assert after.index == 1
    assert assert_whole(database).checkpoint.size == 2


async def test_full_queue_refuses_at_once(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER, Limits(queue_entries=3)) as log:
        first = asyncio.create_task(append(log.sequencer, 1, 2, 3))
        with pytest.raises(Overloaded) as refused:
            await append(log.sequencer, 4, 5, 6, 7)
        assert refused.value.retry_after_s == 1
        assert len(await first) == 3


async def test_large_batches_are_taken_in_parts(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER, Limits(batch_entries=4)) as log:
        await asyncio.gather(*(append(log.sequencer, n, n + 1, n + 2) for n in range(0, 30, 3)))
    assert assert_whole(database).checkpoint.size == 30


async def test_stopping_writes_what_is_queued(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        waiting = [asyncio.create_task(append(log.sequencer, n)) for n in range(50)]
        await asyncio.sleep(0)
        await log.sequencer.stop()
        assert len(await asyncio.gather(*waiting)) == 50
        with pytest.raises(Unavailable):
            await append(log.sequencer, 99)
    assert assert_whole(database).checkpoint.size == 50


@pytest.mark.promise(1)
async def test_nobody_is_answered_and_nothing_published_before_the_commit(
    database: DatabaseUnderTest,
) -> None:
    storage = StorageThatTakesItsTime(database.open_for_writing())
    async with opened(storage, SIGNER) as log:
        waiting = asyncio.create_task(append(log.sequencer, 1))
        assert await asyncio.to_thread(storage.committing.wait, WAIT_S_MAX)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert log.sequencer.published.size == 0
        with pytest.raises(NotFound):
            await log.archive.entry(0)
        storage.go_on.set()
        (placed,) = await waiting
        assert verified(placed) == log.sequencer.published.size == 1


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("storage", "kept"), [(StorageThatKeepsButFails, 2), (StorageThatLosesAndFails, 1)]
)
async def test_commit_in_doubt_stops_the_process_and_the_next_start_finds_the_truth(
    database: DatabaseUnderTest, storage: type[StorageAround], kept: int
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, 1)
    async with opened(storage(database.open_for_writing()), SIGNER) as log:
        with pytest.raises(Unavailable) as failure:
            await append(log.sequencer, 2)
        assert failure.value.reason == "LEDGER_STOPPED"
        await asyncio.wait_for(log.sequencer.ended.wait(), WAIT_S_MAX)
        with pytest.raises(Unavailable):
            await append(log.sequencer, 3)
        assert log.sequencer.published.size == 1
    assert assert_whole(database).checkpoint.size == kept
    async with opened(database.open_for_writing(), SIGNER) as log:
        (retried,) = await append(log.sequencer, 2)
        assert (retried.index, retried.existing) == (1, kept == 2)
    assert assert_whole(database).checkpoint.size == 2


@pytest.mark.promise(1)
async def test_full_disk_refuses_and_heals(database: DatabaseUnderTest) -> None:
    storage = StorageWithAFullDisk(database.open_for_writing())
    told: list[bool] = []
    async with opened(storage, SIGNER) as log:
        log.sequencer.on_writable = told.append
        with pytest.raises(Unavailable) as failure:
            await append(log.sequencer, *range(300))
        assert failure.value.reason == "LEDGER_WRITE_FAILED"
        assert log.sequencer.published.size == 0
        storage.has_room = True
        # Other entries at the same places: the tiles of the refused batch are forgotten.
        placed = await append(log.sequencer, *range(1000, 1300))
        assert {verified(one) for one in placed} == {300}
        assert told == [False, True]
        assert not log.sequencer.ended.is_set()
    assert assert_whole(database).checkpoint.size == 300


async def test_failed_insert_refuses_and_heals(database: DatabaseUnderTest) -> None:
    storage = StorageThatCannotInsert(database.open_for_writing())
    async with opened(storage, SIGNER) as log:
        with pytest.raises(Unavailable):
            await append(log.sequencer, 1)
        storage.is_writable = True
        (placed,) = await append(log.sequencer, 1)
        assert (placed.index, placed.existing) == (0, False)
    assert assert_whole(database).checkpoint.size == 1


async def test_bit_that_flips_on_the_way_in_is_not_signed(database: DatabaseUnderTest) -> None:
    async with opened(StorageThatFlipsABit(database.open_for_writing()), SIGNER) as log:
        with pytest.raises(Unavailable):
            await append(log.sequencer, 1)
    assert assert_whole(database).checkpoint.size == 0


@pytest.mark.parametrize("engine", ["sqlite"])
async def test_entries_that_are_not_there_when_read_back_are_not_signed(
    database: DatabaseUnderTest,
) -> None:
    database.change("CREATE TRIGGER loses BEFORE INSERT ON entries BEGIN SELECT RAISE(IGNORE); END")
    async with opened(database.open_for_writing(), SIGNER) as log:
        with pytest.raises(Unavailable) as refused:
            await append(log.sequencer, 1)
        assert refused.value.reason == "LEDGER_WRITE_FAILED"
        database.change("DROP TRIGGER loses")
        await append(log.sequencer, 1)
    assert assert_whole(database).checkpoint.size == 1


@pytest.mark.promise(5)
async def test_openings_open_the_commitments_and_are_in_no_leaf(
    database: DatabaseUnderTest,
) -> None:
    (entry,) = complete(decided(7))
    assert b"case-7" not in entry.leaf
    assert b"narrative that" not in entry.leaf
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append([entry])
    assert assert_whole(database).openings == 3
    with contextlib.closing(database.open_for_reading()) as reading:
        rows = reading.openings_of(0)
    commitments = commitments_of(entry.leaf)
    openings = [unsealed(KEYRING, row, commitments[row.field]) for row in rows]
    assert [(one.field, one.value) for one in openings if one] == [
        ("case_number", "case-7"),
        ("narrative", "a narrative that is in no leaf"),
        ("officer", "officer-7"),
    ]
    assert all(commit_to(one.field, one.salt, one.value) in entry.leaf for one in openings if one)


@pytest.mark.promise(5)
async def test_destroying_an_opening_leaves_every_proof_valid(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        before = await append(log.sequencer, 1, 2)
    database.change("DELETE FROM openings WHERE entry_index = 0")
    with pytest.raises(CheckFailed, match="openings: 3 are stored, and 6 should be"):
        assert_whole(database)
    async with opened(database.open_for_writing(), SIGNER) as log:
        (after,) = await append(log.sequencer, 1)
        assert after.leaf == before[0].leaf
        assert verified(after) == verified(before[0]) == 2


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE entries SET leaf = zeroblob(length(leaf)) WHERE entry_index = 299", "root"),
        ("UPDATE entries SET leaf = zeroblob(length(leaf)) WHERE entry_index = 256", "root"),
        ("DELETE FROM entries WHERE entry_index = 299", "another number of entries"),
        ("DELETE FROM entries WHERE entry_index = 270", "does not belong to size"),
        ("UPDATE tiles SET hashes = zeroblob(8192)", "root"),
        ("UPDATE tiles SET hashes = zeroblob(32)", "not whole"),
        ("DELETE FROM tiles", "not whole"),
        ("UPDATE head SET size = 299", "head is not what"),
        ("UPDATE head SET root = zeroblob(32)", "head is not what"),
        ("UPDATE head SET checkpoint = replace(checkpoint, '300', '299')", "does not verify"),
    ],
)
async def test_damage_at_the_edge_stops_the_start(
    database: DatabaseUnderTest, change: str, found: str
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, *range(300))
    database.change(change)
    with pytest.raises(NotReady, match=found):
        async with opened(database.open_for_writing(), SIGNER):
            pass


async def test_rolled_back_head_with_its_old_checkpoint_stops_the_start(
    database: DatabaseUnderTest,
) -> None:
    """An attacker who puts an older, truly signed checkpoint back cannot hide the entries after it."""
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, 1)
        old = log.sequencer.published
        await append(log.sequencer, 2)
    database.change(
        "UPDATE head SET size = 1, root = ?, checkpoint = ?", old.checkpoint.root, old.note
    )
    with pytest.raises(NotReady, match="another number of entries"):
        async with opened(database.open_for_writing(), SIGNER):
            pass


async def test_damaged_entry_gets_no_receipt(database: DatabaseUnderTest) -> None:
    """Damage far from the edge is found when the entry is read, before it is vouched for."""
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, *range(300))
    database.change("UPDATE entries SET leaf = zeroblob(8) WHERE entry_index = 5")
    async with opened(database.open_for_writing(), SIGNER) as log:
        with pytest.raises(NotReady, match="entry 5 is not what was appended"):
            await append(log.sequencer, 5)
        (other,) = await append(log.sequencer, 6)
        assert other.existing


async def test_proofs_at_every_published_size_verify(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, *range(600))
        size, hashes, proof = await log.archive.inclusion_proof(5, 0)
        assert size == 600
        parsed = TlogProof.parse(proof)
        assert list(parsed.hashes) == hashes
        parsed.verify(await log.archive.entry(5), SIGNER.verifier)
        for old in (6, 256, 257, 512, 599):
            at, older, none = await log.archive.inclusion_proof(5, old)
            assert (at, none) == (old, "")
            assert len(older) == len(TreeAtSize(old, lambda *_: bytes(32)).inclusion_proof(5))


async def test_ended_searches_are_no_longer_open(database: DatabaseUnderTest) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, 1, 2, 3)
        await log.sequencer.append(complete(decided(4, permitted=False), failed(2)))
        found, following = await log.archive.open_searches(0, 1000)
        assert [one.index for one in found] == [0, 2]
        assert following is None
        found, following = await log.archive.open_searches(0, 1)
        assert ([one.index for one in found], following) == ([0], 2)
        assert verified(Placed(0, found[0].leaf, found[0].tlog_proof, False)) == 5
    assert assert_whole(database).open_searches == 2


async def test_entries_are_found_by_kind_newest_first_and_by_their_keys(
    database: DatabaseUnderTest,
) -> None:
    async with opened(database.open_for_writing(), SIGNER) as log:
        await append(log.sequencer, 1, 2, 3)
        await log.sequencer.append(complete(rejected(), decided(4)))
        kind = KINDS["search_decided"]

        async def newest(before: int, count: int) -> list[int]:
            return [index for index, _ in await log.archive.newest(kind, before, count)]

        assert await newest(0, 10) == [4, 2, 1, 0]
        assert await newest(4, 2) == [2, 1]
        assert await newest(0, 1) == [4]
        keys = [decided(4).idempotency_key, "never given", decided(2).idempotency_key]
        assert [index for index, _ in await log.archive.bearing_keys(keys)] == [1, 4]
