"""A witness that is killed between storing and answering, or asked by two at once, does not go back."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from support.witnesses import (
    LOG_SIGNER,
    GrowingLog,
    WitnessProcess,
    a_witness,
    post,
    write_witness,
)
from witness.store import Store

LOG = GrowingLog()
FORK = GrowingLog(fork_at=2)
DYING = Path(__file__).parents[1] / "support" / "witness_that_dies.py"


@pytest.mark.fault
@pytest.mark.parametrize(("when", "remembered"), [("after", 5), ("before", 3)])
async def test_killed_around_the_commit(tmp_path: Path, when: str, remembered: int) -> None:
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    witness = WitnessProcess(config)
    await witness.start()
    status, _, _ = await post(witness.url, LOG.request(0, 3))
    assert status == 200
    witness.kill()

    dying = WitnessProcess(config, (DYING, when))
    await dying.start()
    with pytest.raises(aiohttp.ClientError):
        await post(dying.url, LOG.request(3, 5))
    assert await dying.ends() == -9

    await witness.start()
    try:
        assert await post(witness.url, LOG.request(0, 7)) == (
            409,
            "text/x.tlog.size",
            f"{remembered}\n",
        )
        status, _, _ = await post(witness.url, FORK.request(remembered, 7))
        assert status == 422
        status, _, _ = await post(witness.url, LOG.request(remembered, 7))
        assert status == 200
    finally:
        assert witness.stop() == 0


@pytest.mark.fault
@pytest.mark.promise(4)
def test_two_racing_requests_cannot_roll_back(tmp_path: Path) -> None:
    """Two witnesses of one file, each on its own connection, as threads and as processes would."""
    path = tmp_path / "witness.sqlite3"
    size = 1
    with (
        closing(Store.open(path, create=True)) as one,
        closing(Store.open(path, create=False)) as two,
    ):
        assert a_witness(one).add_checkpoint(LOG.request(0, size)).status == 200
        with ThreadPoolExecutor(2) as threads:
            for _ in range(25):
                start = threading.Barrier(2)
                larger = (size + 1, size + 3)
                asked = [
                    threads.submit(_when_all_are_ready, start, store, LOG.request(size, then))
                    for store, then in zip((one, two), larger, strict=True)
                ]
                answers = [each.result() for each in asked]
                assert sorted(answers) == [200, 409]
                size = larger[answers.index(200)]
                held = one.cosigned(LOG_SIGNER.verifier.name)
                assert held is not None
                assert held.size == size


@pytest.mark.fault
def test_of_two_racing_forks_one_is_cosigned(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"witness-{number}.sqlite3"
        start = threading.Barrier(2)
        with (
            closing(Store.open(path, create=True)) as one,
            closing(Store.open(path, create=False)) as two,
            ThreadPoolExecutor(2) as threads,
        ):
            asked = [
                threads.submit(_when_all_are_ready, start, store, log.request(0, 5))
                for store, log in ((one, LOG), (two, FORK))
            ]
            assert sorted(each.result() for each in asked) == [200, 409]


def _when_all_are_ready(start: threading.Barrier, store: Store, body: bytes) -> int:
    start.wait(30)
    return a_witness(store).add_checkpoint(body).status
