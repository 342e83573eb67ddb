"""Disks that fail, fill up, forget and flip bits, under the real writer; what it does in which order.

The kernel does the failing: strace makes system calls of the writer fail or kills it in them, and a small
file system of its own fills up.
"""

import contextlib
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.check import CheckFailed
from ledger.last_signed import FileLastSigned, beside
from ledger.log import opened
from ledger.reading import StorageFailed
from ledger.sqlite_storage import SqliteDatabase
from shared.errors import NotReady, Unavailable
from support.ledgers import SIGNER, assert_whole, complete, decided, new_log
from tlog.proof import verify_receipt

pytestmark = [
    pytest.mark.fault,
    pytest.mark.promise(1),
    pytest.mark.promise(4),
    pytest.mark.timeout(1800),
]

PROGRAM = Path(__file__).parent.parent / "support" / "appender_under_test.py"
APPENDS = 12
SEED = 20201113
TIMEOUT_S = 100

TRACED = ["strace", "-f", "--seccomp-bpf", "-qq"]


@dataclass(frozen=True)
class Said:
    """What the writer said before it ended."""

    acknowledged: dict[int, bytes]
    """Leaf of each index."""
    refused: list[tuple[int, str]]
    """Which entry, and the reason."""
    last: str


def run_writer(folder: Path, *before: str, count: int = APPENDS) -> Said:
    """Runs the writer, under another program."""
    ran = subprocess.run(
        [*before, sys.executable, PROGRAM, folder, str(count)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env={"PYTHONPATH": ":".join(one for one in sys.path if one)} | {"PATH": "/usr/bin:/bin"},
    )
    lines = [line.split(" ") for line in ran.stdout.splitlines()]
    return Said(
        {int(one[2]): bytes.fromhex(one[3]) for one in lines if one[0] == "acknowledged"},
        [(int(one[1]), one[2]) for one in lines if one[0] == "refused"],
        ran.stdout.splitlines()[-1] if lines else ran.stderr,
    )


def assert_kept(folder: Path, said: Said) -> None:
    """Nothing acknowledged is lost, all is whole, and the log goes on."""
    database = SqliteDatabase(folder / "ledger.sqlite")
    if not database.has_log():
        assert not said.acknowledged
        return
    assert_whole(database)
    again = run_writer(folder, count=1)
    assert again.last.startswith("whole "), again.last
    reading = database.open_for_reading()
    for index, leaf in said.acknowledged.items():
        assert reading.leaf(index) == leaf
    reading.close()
    store = FileLastSigned.open(beside(database.path))
    last = store.read()
    store.close()
    checkpoint = assert_whole(database).checkpoint
    assert last is not None
    assert (last.size, last.root) == (checkpoint.size, checkpoint.root)


def test_an_answer_comes_after_both_syncs(tmp_path: Path) -> None:
    """In the kernel's own record: the log is synced, then the record of the signature, then all is said."""
    trace = tmp_path / "trace"
    calls = "trace=pwrite64,fdatasync,fsync,write"
    said = run_writer(tmp_path, *TRACED, "-yy", "-o", str(trace), "-e", calls, count=5)
    assert len(said.acknowledged) == 5
    events = []
    for line in trace.read_text().splitlines():
        if '"acknowledged' in line:
            events.append("answer")
        elif found := re.search(r"(fdatasync|pwrite64)\(\d+<[^>]*ledger\.sqlite([^>]*)>", line):
            events.append(found[1] + found[2])
    order = ["fdatasync-wal", "pwrite64.last-signed", "fdatasync.last-signed", "answer"]
    wanted = [one for one in events if one in order]
    # The first answer ends the beginning of the log, in which there are other syncs.
    first = wanted.index("answer")
    assert wanted[first - 3 : first + 1] == order
    between = [one for one in wanted[first + 1 :] if one in order]
    assert between[: 4 * 4] == order * 4


def faults(rounds: int) -> list[str]:
    """Which call fails how, and at which time: a few of all in the short form."""
    every = [
        f"inject={call}:{how}:when={when}"
        for call in ("fdatasync", "pwrite64", "fsync", "write", "openat")
        for how in ("error=EIO", "error=ENOSPC", "signal=SIGKILL")
        for when in (2, 3, 5, 8, 13, 21, 34, 55)
        # The interpreter opens and writes files too: those are its own to lose.
        if not (call in ("openat", "write") and how != "signal=SIGKILL")
    ]
    return random.Random(SEED).sample(every, min(len(every), 5 * rounds))


def test_no_system_call_that_fails_or_is_the_last_one_loses_anything(
    tmp_path: Path, fault_rounds: int
) -> None:
    for number, fault in enumerate(faults(fault_rounds)):
        folder = tmp_path / str(number)
        folder.mkdir()
        call = re.match("inject=([a-z0-9]+)", fault)
        assert call is not None
        traced = [*TRACED, "-o", "/dev/null", "-e", f"trace={call[1]}", "-e", fault]
        said = run_writer(folder, *traced)
        assert_kept(folder, said)


def test_full_disk_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """A file system of its own, of 3 MB, half of it taken; the writer makes room when it is refused."""
    script = (
        'mount -t tmpfs -o size=3m none "$0" && dd if=/dev/zero of="$0/ballast" bs=1k count=1500'
        ' 2>/dev/null && exec "$@"'
    )
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(tmp_path)]
    said = run_writer(tmp_path, *unshare, count=900)
    (first, why), (second, _) = said.refused
    assert why == "LEDGER_WRITE_FAILED"
    # It went on where it was refused, until the disk was full again; and whole it is.
    assert 0 < first < second == len(said.acknowledged)
    assert said.last.startswith("whole "), said.last
    assert int(said.last.split()[1]) == len(said.acknowledged)


async def test_read_only_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    database = new_log(tmp_path)
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(decided(1)))
    before = database.path.read_bytes()
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(tmp_path)]
    said = run_writer(tmp_path, *unshare)
    assert said.last.startswith("not opened LEDGER_UNREADABLE"), said.last
    assert "Read-only file system" in said.last
    assert database.path.read_bytes() == before
    async with opened(database.open_for_writing(), SIGNER) as log:
        await log.sequencer.append(complete(decided(2)))
    assert assert_whole(database).checkpoint.size == 2


async def test_what_a_disk_has_damaged_is_never_served(tmp_path: Path, fault_rounds: int) -> None:
    """One flipped bit, one lost sector or a cut file, anywhere: what is answered is what was appended."""
    chance = random.Random(SEED)
    database = new_log(tmp_path)
    async with opened(database.open_for_writing(), SIGNER) as log:
        placed = await log.sequencer.append(complete(*(decided(n) for n in range(600))))
    leaves = {one.index: one.leaf for one in placed}
    for round_ in range(6 * fault_rounds):
        folder = tmp_path / str(round_)
        folder.mkdir()
        for one in (database.path, beside(database.path)):
            shutil.copy(one, folder / one.name)
        damaged = SqliteDatabase(folder / database.path.name)
        what = damage(damaged.path, chance)
        await assert_true_or_refused(damaged, leaves, what)
        shutil.rmtree(folder)


def damage(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    kind = chance.choice(("bit", "sector", "cut"))
    if kind == "bit":
        content[at] ^= 1 << chance.randrange(8)
    elif kind == "sector":
        at -= at % 512
        content[at : at + 512] = bytes(512)
    else:
        del content[at:]
    path.write_bytes(content)
    return f"{kind} at {at} of {len(content)}"


async def assert_true_or_refused(
    database: SqliteDatabase, leaves: dict[int, bytes], what: str
) -> None:
    asked = range(0, len(leaves), 37)
    answered, found = 0, ""
    try:
        async with opened(database.open_for_writing(), SIGNER) as log:
            for index in asked:
                with contextlib.suppress(NotReady, Unavailable):
                    leaf = await log.archive.entry(index)
                    _, _, proof = await log.archive.inclusion_proof(index, 0)
                    assert leaf == leaves[index], what
                    verify_receipt(leaf, proof, SIGNER.verifier)
                    answered += 1
    except (NotReady, StorageFailed) as error:
        found = str(error)
    if answered < len(asked):
        with pytest.raises((CheckFailed, StorageFailed, NotReady)):
            assert_whole(database)
        assert answered or found, what
