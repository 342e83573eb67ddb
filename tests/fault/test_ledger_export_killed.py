"""The ledger is killed while it exports: the folder verifies at any moment, and is taken up later."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from shared.bus import Bus
from shared.errors import ServiceError
from support.ledgers import (
    SIGNER,
    LedgerProcess,
    assert_whole,
    decided,
    run_program,
    write_settings,
)
from support.nats_servers import NatsUnderTest
from support.waiting import until
from tlog.verify import verify_export

pytestmark = [pytest.mark.fault, pytest.mark.promise(4)]

SEED = 20261123
BATCH = 64


def exported_size(folder: Path) -> int:
    """What a reader of the folder finds, who reads the checkpoint first."""

    def read(path: str) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return (folder / path).read_bytes()
        return None

    if not (folder / "checkpoint").exists():
        return 0
    return verify_export(read, SIGNER.verifier).checkpoint.size


@pytest.mark.timeout(1200)
async def test_an_export_verifies_whenever_the_ledger_is_killed(
    tmp_path: Path, nats_server: NatsUnderTest, fault_rounds: int
) -> None:
    chance = random.Random(SEED)
    config = write_settings(tmp_path, nats_server)
    with config.open("a") as file:
        file.write('[export]\nfolder = "export"\nevery_s = 0.1\n')
    folder = config.with_name("export")
    process = LedgerProcess(config)
    broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
    numbers = iter(range(0, 10_000_000, BATCH))

    async def append() -> None:
        start = next(numbers)
        entries = [decided(number) for number in range(start, start + BATCH)]
        with contextlib.suppress(ServiceError):  # killed meanwhile
            await broker.request(
                "ledger.append", AppendRequest(entries=entries), AppendResponse, timeout_s=5
            )

    try:
        for round_ in range(fault_rounds + 1):
            await process.start()
            before = exported_size(folder)
            enough = before + chance.randrange(1, 600)

            async def has_grown(enough: int = enough) -> bool:
                await append()
                return exported_size(folder) >= enough

            await until(has_grown)
            process.kill()
            assert exported_size(folder) >= enough, f"{SEED=} {round_=}"
    finally:
        process.kill()
        await broker.close()
    size = assert_whole(process.database).checkpoint.size
    done = await asyncio.to_thread(run_program, "export-tiles", config, folder, "--recheck")
    assert done.returncode == 0, done.stderr
    assert exported_size(folder) == size
    # All that the killed processes had put under a checkpoint was right.
    again = await asyncio.to_thread(run_program, "export-tiles", config, folder, "--recheck")
    assert again.stdout == f"EXPORTED: {size} entries, 0 files written\n"
