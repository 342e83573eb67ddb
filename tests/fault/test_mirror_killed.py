"""A mirror is killed while it copies: what it has left verifies, and the next one goes on from there."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from countersign.mirror.copy import opened
from support.filled_logs import entries_of
from support.ledgers import SIGNER
from support.lying_logs import lying_log
from support.waiting import until
from tlog.policy import Policy
from tlog.verify import verify_export

pytestmark = [pytest.mark.fault, pytest.mark.promise(4)]

SEED = 20261122
ENTRIES = entries_of(18_000)
STEP = 6_000


async def start(url: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from countersign.cli.main import main; main()"),
        *("ledger", "mirror", url, folder, "--key", SIGNER.verifier.vkey, "--every", "0.1"),
        stdout=asyncio.subprocess.DEVNULL,
    )


def size_of(folder: Path) -> int:
    def read(path: str) -> bytes | None:
        file = folder / path
        return file.read_bytes() if file.exists() else None

    if not (folder / "checkpoint").exists():
        return 0
    return verify_export(read, SIGNER.verifier).checkpoint.size


@pytest.mark.timeout(1800)
async def test_a_killed_mirror_leaves_a_copy_that_verifies(
    tmp_path: Path, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    async with lying_log() as log:
        for round_ in range(fault_rounds):
            folder = tmp_path / str(round_)
            for size in range(STEP, len(ENTRIES) + 1, STEP):
                log.show(ENTRIES[: size + chance.randrange(256) - 255])
                before = size_of(folder)
                asked = sum(log.asked.values()) + chance.randrange(2, STEP // 256)
                process = await start(log.url, folder)

                async def has_asked(asked: int = asked) -> bool:
                    return sum(log.asked.values()) >= asked

                try:
                    await until(has_asked)
                finally:
                    process.kill()
                    await process.wait()
                assert size_of(folder) >= before, f"{SEED=} {round_=}"
                with opened(folder, Policy.of_logs([SIGNER.verifier])) as copy:
                    assert await copy.damaged() == [], f"{SEED=} {round_=}"
            log.show(ENTRIES)
            process = await start(log.url, folder)

            async def has_all(folder: Path = folder) -> bool:
                return size_of(folder) == len(ENTRIES)

            try:
                await until(has_all)
            finally:
                process.terminate()
                assert await process.wait() == 0
