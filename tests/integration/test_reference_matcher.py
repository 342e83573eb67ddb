"""The reference system with its real worker process: how well it ranks, and what it survives."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from connector.reference import ReferenceSettings, ReferenceSystem
from connector.system import ProbeRefused, SystemFailed, SystemUnusable
from connector.worker_messages import Bounds
from support import pictures

pytestmark = pytest.mark.asyncio(loop_scope="module")

RANK_1_MIN = 0.95
"""Share of probes whose own person comes first. On these drawings it is 1."""

ROOMY = Bounds(memory_bytes=640 * 1024 * 1024, cpu_s=30)
SEARCH_S_MAX = 30.0


def settings(
    store: Path,
    *,
    gallery: Path = pictures.GALLERY,
    bounds: Bounds = ROOMY,
    search_s_max: float = SEARCH_S_MAX,
    workers: int = 1,
) -> ReferenceSettings:
    return ReferenceSettings(
        gallery=gallery,
        store=store,
        workers=workers,
        search_s_max=search_s_max,
        eye_distance_px_min=20,
        bounds=bounds,
    )


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that only the first start of this module has to enrol."""
    return tmp_path_factory.mktemp("store")


@pytest_asyncio.fixture(name="system", scope="module", loop_scope="module")
async def _system(store: Path) -> AsyncIterator[ReferenceSystem]:
    """Shared as well: starting a worker takes longer than a search, and who kills one leaves another."""
    system = ReferenceSystem(settings(store))
    assert await system.start() == 80
    yield system
    await system.close()


async def test_probes_find_their_own_person_first(system: ReferenceSystem) -> None:
    probes = sorted(pictures.PROBES.glob("*.jpg"))

    hits = 0
    for probe in probes:
        findings = await system.search(probe.read_bytes(), 20)
        assert len(findings.resemblances) == 20
        assert findings.gallery_size == 80
        hits += findings.resemblances[0].record[:4] == probe.name[:4]

    assert len(probes) == 40
    assert hits / len(probes) >= RANK_1_MIN


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"no picture", "NOT_AN_IMAGE"),
        (b"", "NOT_AN_IMAGE"),
        (pictures.jpeg_bomb(), "IMAGE_TOO_LARGE"),
        (pictures.jpeg_2000_bomb(), "IMAGE_TOO_LARGE"),
        (pictures.png_bomb(), "IMAGE_TOO_LARGE"),
        (pictures.blank(), "NO_FACE"),
        (pictures.two_faces(), "SEVERAL_FACES"),
        (pictures.small_face(), "LOW_QUALITY"),
        (bytes(9 * 1024 * 1024), "IMAGE_TOO_LARGE"),
    ],
    ids=[
        "text",
        "empty",
        "jpeg-bomb",
        "jpeg-2000-bomb",
        "png-bomb",
        "no-face",
        "two-faces",
        "small-face",
        "large-file",
    ],
)
async def test_unusable_probe_is_refused_by_a_worker_that_lives_on(
    system: ReferenceSystem, file: bytes, reason: str
) -> None:
    before = system.worker_pids

    with pytest.raises(ProbeRefused) as refused:
        await system.search(file, 20)

    assert refused.value.reason == reason
    assert (await system.search(pictures.probe(), 1)).gallery_size == 80
    assert system.worker_pids == before


async def test_picture_that_takes_too_much_memory_is_refused(store: Path) -> None:
    """Twenty megapixels in a small file: within the limits, but not within this worker's memory."""
    tight = Bounds(memory_bytes=64 * 1024 * 1024, cpu_s=30)
    system = ReferenceSystem(settings(store, bounds=tight))
    await system.start()
    try:
        with pytest.raises(ProbeRefused) as refused:
            await system.search(pictures.megapixels(20), 20)
        assert refused.value.reason == "IMAGE_TOO_LARGE"
        assert (await system.search(pictures.probe(), 1)).gallery_size == 80
    finally:
        await system.close()


async def test_largest_picture_accepted_fits_the_default_bounds(system: ReferenceSystem) -> None:
    with pytest.raises(ProbeRefused) as refused:
        await system.search(pictures.megapixels(25), 20)

    assert refused.value.reason == "NO_FACE"


async def stopped_in_a_search(system: ReferenceSystem) -> tuple[int, "asyncio.Task[object]"]:
    """A worker that is stopped while a search waits for it."""
    (pid,) = system.worker_pids
    os.kill(pid, signal.SIGSTOP)
    searching: asyncio.Task[object] = asyncio.create_task(system.search(pictures.probe(), 20))
    # One step of it hands the probe over and waits: only then is it in the middle of a search.
    await asyncio.sleep(0)
    return pid, searching


async def test_worker_killed_in_a_search_is_replaced(system: ReferenceSystem) -> None:
    pid, searching = await stopped_in_a_search(system)
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(SystemFailed):
        await searching

    assert (await system.search(pictures.probe(), 1)).gallery_size == 80
    assert pid not in system.worker_pids
    assert len(system.worker_pids) == 1


async def test_worker_killed_between_searches_is_replaced(system: ReferenceSystem) -> None:
    (pid,) = system.worker_pids
    os.kill(pid, signal.SIGKILL)

    outcomes = [await attempt(system) for _ in range(2)]

    # Whether the death is seen before or during the first search, the second finds a new worker.
    assert outcomes[-1] == 80
    assert pid not in system.worker_pids


async def attempt(system: ReferenceSystem) -> int:
    """The gallery's size as a search saw it, -1 when the system failed."""
    try:
        return (await system.search(pictures.probe(), 1)).gallery_size
    except SystemFailed:
        return -1


async def test_worker_that_uses_up_its_cpu_time_while_decoding(system: ReferenceSystem) -> None:
    """The kernel's signal is sent by hand: a decoder that burns CPU on purpose is hard to come by."""
    pid, searching = await stopped_in_a_search(system)
    os.kill(pid, signal.SIGXCPU)
    os.kill(pid, signal.SIGCONT)

    with pytest.raises(ProbeRefused) as refused:
        await searching

    assert refused.value.reason == "IMAGE_TOO_LARGE"
    assert (await system.search(pictures.probe(), 1)).gallery_size == 80


async def test_worker_that_stalls_while_decoding(store: Path) -> None:
    system = ReferenceSystem(settings(store, search_s_max=3))
    await system.start()
    try:
        pid, searching = await stopped_in_a_search(system)

        with pytest.raises(ProbeRefused) as refused:
            await searching

        assert refused.value.reason == "IMAGE_TOO_LARGE"
        assert (await system.search(pictures.probe(), 1)).gallery_size == 80
        assert pid not in system.worker_pids
    finally:
        await system.close()


async def test_abandoned_search_leaves_no_worker_in_the_middle_of_it(
    system: ReferenceSystem,
) -> None:
    pid, searching = await stopped_in_a_search(system)
    await asyncio.sleep(0)
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching

    found = await system.search(pictures.probe(1), 1)

    assert found.resemblances[0].record.startswith("id01")
    assert pid not in system.worker_pids


async def test_searches_wait_for_a_worker_and_none_gets_anothers_findings(store: Path) -> None:
    system = ReferenceSystem(settings(store, workers=2))
    await system.start()
    try:
        found = await asyncio.gather(*(system.search(pictures.probe(n), 1) for n in range(6)))
        assert [one.resemblances[0].record[:4] for one in found] == [f"id{n:02d}" for n in range(6)]
        assert len(system.worker_pids) == 2
    finally:
        await system.close()


async def test_no_worker_is_left_behind(store: Path) -> None:
    system = ReferenceSystem(settings(store))
    await system.start()
    (pid,) = system.worker_pids

    await system.close()
    await system.close()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(SystemFailed):
        await system.search(pictures.probe(), 1)


async def test_gallery_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    system = ReferenceSystem(settings(tmp_path / "store", gallery=tmp_path))

    with pytest.raises(SystemUnusable, match="no picture"):
        await system.start()

    await system.close()


async def test_worker_sees_none_of_the_connectors_environment(
    system: ReferenceSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_SECRET", "SECRET")
    (old,) = system.worker_pids
    os.kill(old, signal.SIGKILL)
    await attempt(system)
    await attempt(system)
    (pid,) = system.worker_pids

    assert b"SECRET" not in environment_of(pid)


def environment_of(pid: int) -> bytes:
    """What the process was started with, as the kernel tells it."""
    return Path(f"/proc/{pid}/environ").read_bytes()
