"""What stands before the start of every process of an installation on one machine."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE

import pytest

from countersign.installation import leash

TIMEOUT_S = 60.0
PROGRAM = (sys.executable, "-c", "import os; print(os.sched_getscheduler(0))")


async def leashed(parent: int, *by: str) -> tuple[int | None, str]:
    """Exit code, and what the program said."""
    process = await asyncio.create_subprocess_exec(
        *by, sys.executable, "-I", "-S", leash.__file__, str(parent), *PROGRAM, stdout=PIPE
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, _ = await process.communicate()
    return process.returncode, out.decode().strip()


@pytest.mark.parametrize(
    ("option", "policy"), [("--other", os.SCHED_BATCH), ("--idle", os.SCHED_IDLE)]
)
async def test_a_part_takes_long_turns_unless_it_was_told_how_to_run(
    option: str, policy: int
) -> None:
    assert await leashed(os.getpid(), "chrt", option, "0") == (0, str(policy))


async def test_a_part_whose_parent_has_gone_does_not_start() -> None:
    assert await leashed(os.getpid() + 1) == (1, "")
