"""The feeder before real witnesses of ours, and before every answer and every misbehaviour of others."""

import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from support.feeding import (
    LATER,
    QUICK,
    Feeder,
    PublishedLog,
    ScriptedWitness,
    cosign,
    feeder,
    old_of,
    policy_text,
    size_answer,
)
from support.waiting import until
from support.witnesses import (
    COSIGNER,
    GrowingLog,
    WitnessesOfOneStore,
    serving,
)
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.policy import Policy
from tlog.witness_protocol import AddCheckpoint

OTHER = Cosigner.from_seed("witness.example/w2", bytes(32), CosignatureKind.ED25519)
THIRD = Cosigner.from_seed("witness.example/w3", b"3" * 32, CosignatureKind.ML_DSA_44)
FORK = GrowingLog(fork_at=2)


@contextlib.asynccontextmanager
async def real(
    folder: Path, name: str, cosigner: Cosigner
) -> AsyncIterator[tuple[str, WitnessesOfOneStore]]:
    """One of our witnesses; gives its URL and its store."""
    place = folder / name
    place.mkdir()
    held = WitnessesOfOneStore(place, cosigner)
    async with serving(held.witness, place) as url:
        yield url, held
    held.store.close()


@contextlib.asynccontextmanager
async def before(
    script: Callable[[bytes], web.Response | bytes | None], folder: Path, size: int = 5
) -> AsyncIterator[tuple[Feeder, ScriptedWitness, PublishedLog]]:
    """A feeder before one scripted witness, which its policy wants."""
    witness, log = ScriptedWitness(script), PublishedLog(size)
    async with (
        witness.serving() as url,
        feeder(log, policy_text("all", ("w1", COSIGNER, url)), folder) as one,
    ):
        yield one, witness, log


@pytest.mark.promise(4)
async def test_two_of_three_with_one_dead(tmp_path: Path) -> None:
    """Growth is cosigned by those that live, and what is kept convinces a stranger."""
    log = PublishedLog(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with (
            real(tmp_path, "w1", COSIGNER) as (one, _),
            real(tmp_path, "w3", THIRD) as (three, _),
        ):
            policy = policy_text(
                "2", ("w1", COSIGNER, one), ("w2", OTHER, dead), ("w3", THIRD, three)
            )
            async with feeder(log, policy, tmp_path) as feeding:
                assert await feeding.cosigned(3) == {"w1", "w3"}
                log.grow(7)
                assert await feeding.cosigned(7) == {"w1", "w3"}
                assert log.proofs == [(3, 7), (3, 7)]
                await feeding.alarm("w2", "unreachable")
    judged = Policy.parse(policy).judge((tmp_path / "cosigned-checkpoint").read_text())
    assert judged.quorum
    assert judged.checkpoint == GrowingLog().checkpoint(7)
    assert set(judged.cosigned) == {"w1", "w3"}


async def test_quorum_that_is_not_met_is_only_pending(tmp_path: Path) -> None:
    log = PublishedLog(3)
    silent = ScriptedWitness(lambda _: None)
    async with real(tmp_path, "w1", COSIGNER) as (one, _), silent.serving() as two:
        policy = policy_text("all", ("w1", COSIGNER, one), ("w2", OTHER, two))
        async with feeder(log, policy, tmp_path, QUICK, timeout_s=1) as feeding:
            await feeding.alarm("w2", "unreachable")
            wanted = {"witness/w1": True, "witness/w2": False, "witnesses": False}

            async def unhealthy() -> bool:
                return feeding.health == wanted

            await until(unhealthy)
            witnessing = feeding.witnessing
            assert witnessing.cosigned is None
            assert witnessing.gathered is not None
            assert set(witnessing.gathered.cosigned) == {"w1"}
            assert "w2" in witnessing.gathered.lacking
            assert await witnessing.wait_for(3, 0.01) is None
    assert not (tmp_path / "cosigned-checkpoint").exists()


async def test_idle_log_is_cosigned_afresh(tmp_path: Path) -> None:
    log = PublishedLog(3)
    async with (
        real(tmp_path, "w1", COSIGNER) as (url, held),
        feeder(log, policy_text("all", ("w1", COSIGNER, url)), tmp_path, QUICK) as feeding,
    ):
        await feeding.cosigned(3)
        held.clock.advance(seconds=60)
        time_s = int(held.clock.time.timestamp())

        async def afresh() -> bool:
            note = feeding.witnessing.cosigned
            return note is not None and note.cosigned["w1"] == time_s

        async def well() -> bool:
            return feeding.health == {"witness/w1": True, "witnesses": True}

        await until(afresh)
        await until(well)


async def test_newest_checkpoint_only(tmp_path: Path) -> None:
    """While a round is under way the log may grow as it likes: the next asks for where it is then."""
    log = PublishedLog(1)

    def grow_and_cosign(body: bytes) -> bytes:
        if log.published.size == 1:
            for size in range(2, 20):
                log.grow(size)
        return cosign(body)

    witness = ScriptedWitness(grow_and_cosign)
    async with (
        witness.serving() as url,
        feeder(log, policy_text("all", ("w1", COSIGNER, url)), tmp_path) as feeding,
    ):
        await feeding.cosigned(19)
    sizes = [AddCheckpoint.parse(body).unverified_checkpoint.size for body in witness.bodies]
    assert sizes == [1, 19]


async def test_restart_goes_on_from_what_was_kept(tmp_path: Path) -> None:
    log = PublishedLog(3)
    async with real(tmp_path, "w1", COSIGNER) as (url, _):
        policy = policy_text("all", ("w1", COSIGNER, url))
        async with feeder(log, policy, tmp_path) as first:
            await first.cosigned(3)
    async with feeder(log, policy, tmp_path, timeout_s=0.2) as second:
        assert second.witnessing.cosigned is not None
        assert second.witnessing.cosigned.size == 3


async def test_kept_checkpoint_beyond_the_log_is_a_second_history(tmp_path: Path) -> None:
    log = PublishedLog(7)
    async with real(tmp_path, "w1", COSIGNER) as (url, _):
        policy = policy_text("all", ("w1", COSIGNER, url))
        async with feeder(log, policy, tmp_path) as first:
            await first.cosigned(7)
        witnessing = first.witnessing
    restored = Feeder(
        type(witnessing)(witnessing.policy, (), witnessing._store, PublishedLog(3).view(), QUICK)
    )
    await restored.witnessing.take_up()
    assert [one.size for one in restored.second_histories] == [7]
    assert restored.witnessing.cosigned is None


async def test_damaged_file_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "cosigned-checkpoint").write_bytes(b"\xff")
    async with (
        real(tmp_path, "w1", COSIGNER) as (url, _),
        feeder(PublishedLog(3), policy_text("all", ("w1", COSIGNER, url)), tmp_path) as one,
    ):
        assert await one.cosigned(3) == {"w1"}


async def test_409_with_a_size_is_tried_from_there(tmp_path: Path) -> None:
    """As after a start without memory: the first request says 0."""

    def script(body: bytes) -> web.Response | bytes:
        return cosign(body) if old_of(body) == 2 else size_answer(2)

    async with before(script, tmp_path) as (feeding, witness, log):
        assert await feeding.cosigned(5) == {"w1"}
        assert [old_of(body) for body in witness.bodies] == [0, 2]
        assert log.proofs == [(2, 5)]


async def test_409_of_another_type_is_understood(tmp_path: Path) -> None:
    def script(body: bytes) -> web.Response | bytes:
        return cosign(body) if old_of(body) == 2 else size_answer(2, "text/plain")

    async with before(script, tmp_path) as (feeding, _, _):
        assert await feeding.cosigned(5) == {"w1"}


async def test_409_beyond_our_size_is_final_and_loud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with before(lambda _: size_answer(9), tmp_path) as (feeding, _, _):
        detail = await feeding.alarm("w1", "ahead")
        assert "9" in detail
        assert feeding.second_histories == [], "what it merely says proves nothing"
    assert "CRITICAL" in {record.levelname for record in caplog.records}


async def test_a_stranger_who_shows_our_newest_checkpoint_first_does_no_harm(
    tmp_path: Path,
) -> None:
    """The log grows while the witness is asked, and somebody brings it the newer checkpoint."""
    log = PublishedLog(5)

    def script(body: bytes) -> web.Response | bytes:
        if old_of(body) == 9:
            return cosign(body)
        log.grow(9)
        return size_answer(9)

    witness = ScriptedWitness(script)
    witness.newest = log.log.note(9)
    async with witness.serving() as url:
        policy = policy_text("all", ("w1", COSIGNER, url))
        async with feeder(log, policy, tmp_path) as feeding:
            assert await feeding.cosigned(9) == {"w1"}
            assert feeding.second_histories == []
            assert feeding.follower("w1").alarm is None


async def test_larger_checkpoint_that_our_key_signed_is_proof(tmp_path: Path) -> None:
    """A restored backup: the witness shows what the lost part of the log had signed."""
    witness = ScriptedWitness(lambda _: size_answer(9))
    witness.newest = GrowingLog().note(9)
    async with witness.serving() as url:
        policy = policy_text("all", ("w1", COSIGNER, url))
        async with feeder(PublishedLog(5), policy, tmp_path) as feeding:
            await feeding.alarm("w1", "ahead")

            async def told() -> bool:
                return bool(feeding.second_histories)

            await until(told)
            assert [(one.size, one.note) for one in feeding.second_histories] == [
                (9, witness.newest)
            ]


@pytest.mark.parametrize(
    ("status", "body"),
    [(409, b"5\n"), (409, b""), (409, b"same size, other root"), (422, b"")],
    ids=["409 with the size", "409 without", "409 with words", "422"],
)
async def test_same_size_and_other_root_in_every_dialect(
    tmp_path: Path, status: int, body: bytes
) -> None:
    def script(request: bytes) -> web.Response:
        if old_of(request) != 5:
            return size_answer(5)
        return web.Response(status=status, body=body)

    async with before(script, tmp_path) as (feeding, _, _):
        assert "another tree of size 5" in await feeding.alarm("w1", "history")


async def test_refused_proof_means_another_history(tmp_path: Path) -> None:
    def script(body: bytes) -> web.Response:
        return web.Response(status=422) if old_of(body) == 3 else size_answer(3)

    async with before(script, tmp_path) as (feeding, _, _):
        assert "another tree of size 3" in await feeding.alarm("w1", "history")


@pytest.mark.promise(4)
async def test_forked_log_is_refused_by_our_witness_and_found_out(tmp_path: Path) -> None:
    """Both checkpoints are signed by the log: its own signature is the proof."""
    async with real(tmp_path, "w1", COSIGNER) as (url, held):
        policy = policy_text("all", ("w1", COSIGNER, url))
        async with feeder(PublishedLog(5), policy, tmp_path) as honest:
            await honest.cosigned(5)
        (tmp_path / "cosigned-checkpoint").unlink()
        async with feeder(PublishedLog(6, FORK), policy, tmp_path) as forked:
            await forked.alarm("w1", "history")

            async def told() -> bool:
                return bool(forked.second_histories)

            await until(told)
            assert forked.witnessing.cosigned is None
        assert [one.note for one in held.store.evidence()] == [FORK.note(6)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500, 301, 302, 204])
async def test_what_a_person_must_mend_is_a_configuration_alarm(
    tmp_path: Path, status: int
) -> None:
    headers = {"Location": "/elsewhere"} if status in (301, 302) else {}
    async with before(lambda _: web.Response(status=status, headers=headers), tmp_path) as (
        feeding,
        witness,
        _,
    ):
        assert str(status) in await feeding.alarm("w1", "configuration")
        assert len(witness.bodies) == 1, "no hurry, and no redirect followed"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_what_passes_is_tried_again(tmp_path: Path, status: int) -> None:
    answers = [web.Response(status=status)]

    def script(body: bytes) -> web.Response | bytes:
        return answers.pop() if answers else cosign(body)

    async with before(script, tmp_path) as (feeding, _, _):
        assert await feeding.cosigned(5) == {"w1"}
        assert feeding.follower("w1").alarm is None


GARBAGE: dict[str, Callable[[bytes], web.Response | bytes]] = {
    "empty": lambda _: b"",
    "binary": lambda _: bytes(range(256)),
    "words": lambda _: b"thank you\n",
    "another's line": lambda body: cosign(body, OTHER),
    "line of the right name and a wrong key": lambda body: cosign(
        body, Cosigner.from_seed("witness.example/w1", b"x" * 32, CosignatureKind.ED25519)
    ),
    "line on another checkpoint": lambda _: COSIGNER.cosign(
        GrowingLog().checkpoint(4), LATER
    ).encode(),
    "line with a bit flipped": lambda body: re.sub(rb"....\n$", b"AAA=\n", cosign(body)),
    "huge": lambda body: cosign(body) * 2_000,
    "409 with a huge body": lambda _: web.Response(status=409, body=b"1" * 1_000_000),
    "409 with no number": lambda _: web.Response(status=409, body=b"-1\n"),
    "409 that repeats what was sent": lambda body: size_answer(old_of(body)),
    "409 that never agrees": lambda body: size_answer((old_of(body) + 1) % 5),
}


@pytest.mark.parametrize("script", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_an_alarm_and_nothing_else(
    tmp_path: Path, script: Callable[[bytes], web.Response | bytes]
) -> None:
    async with before(script, tmp_path) as (feeding, _, _):
        await feeding.alarm("w1", "answer")
        assert feeding.witnessing.cosigned is None


async def test_good_line_among_those_of_others_counts(tmp_path: Path) -> None:
    async with before(lambda body: cosign(body, OTHER) + cosign(body), tmp_path) as (feeding, _, _):
        assert await feeding.cosigned(5) == {"w1"}


async def test_one_endpoint_with_two_keys_is_asked_once(tmp_path: Path) -> None:
    witness = ScriptedWitness(lambda body: cosign(body) + cosign(body, THIRD))
    async with witness.serving() as url:
        policy = policy_text("all", ("w1", COSIGNER, url), ("w3", THIRD, f"{url}/"))
        async with feeder(PublishedLog(5), policy, tmp_path) as feeding:
            assert await feeding.cosigned(5) == {"w1", "w3"}
        assert len(witness.bodies) == 1


async def test_slow_witness_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """It never answers, and its time is long: the others' quorum does not wait for it."""
    silent = ScriptedWitness(lambda _: None)
    async with real(tmp_path, "w1", COSIGNER) as (one, _), silent.serving() as two:
        policy = policy_text("1", ("w1", COSIGNER, one), ("w2", OTHER, two))
        async with feeder(PublishedLog(3), policy, tmp_path, timeout_s=600) as feeding:
            assert await feeding.cosigned(3) == {"w1"}


async def test_disk_that_fails_shows_nothing_and_recovers(tmp_path: Path) -> None:
    log = PublishedLog(3)
    folder = tmp_path / "kept"
    async with (
        real(tmp_path, "w1", COSIGNER) as (url, _),
        feeder(log, policy_text("all", ("w1", COSIGNER, url)), folder) as feeding,
    ):

        async def gathered() -> bool:
            one = feeding.witnessing.gathered
            return one is not None and one.quorum

        await until(gathered)
        assert feeding.witnessing.cosigned is None
        folder.mkdir()
        log.grow(4)
        assert await feeding.cosigned(4) == {"w1"}
