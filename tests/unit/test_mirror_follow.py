"""The mirror against honest and lying logs over HTTP: it takes over what is true, and nothing else."""

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from countersign.mirror.copy import Copy, opened
from countersign.mirror.evidence import verify_evidence
from countersign.mirror.follow import Followed, Forked, Mirror
from countersign.mirror.sources import CannotFollow, HttpSource, http_session
from shared.errors import Unavailable
from support.clocks import ClockThatStandsStill
from support.exports import export_of
from support.filled_logs import entries_of
from support.ledgers import ORIGIN, SIGNER
from support.lying_logs import LyingLog, forked, lying_log
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.errors import TlogError
from tlog.note import Signer
from tlog.policy import Policy
from tlog.verify import verify_export

ENTRIES = entries_of(1300)
POLICY = Policy.of_logs([SIGNER.verifier])
STRANGER = Signer.from_seed(ORIGIN, bytes(32))


@pytest.fixture(name="log")
async def _log() -> AsyncIterator[LyingLog]:
    async with lying_log(ENTRIES[:300]) as log:
        yield log


async def no_pause(_: float) -> None:
    """A test does not wait for what will not change."""


async def follow(log: LyingLog, folder: Path, policy: Policy = POLICY) -> Followed:
    """One pass, as a process of its own would make it."""
    with opened(folder, policy) as copy:
        async with http_session() as session:
            source = HttpSource(session, log.url, pauses_s=(0.0,))
            mirror = Mirror(source, copy, policy, ClockThatStandsStill(), no_pause)
            return await mirror.follow()


async def damaged(folder: Path) -> list[str]:
    with opened(folder, POLICY) as copy:
        return await copy.damaged()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


def the_evidence(folder: Path) -> dict[str, object]:
    (file,) = (folder / "evidence").iterdir()
    document: dict[str, object] = json.loads(file.read_text())
    return document


def size_of(folder: Path) -> int:
    return verify_export(contents(folder).get, SIGNER.verifier).checkpoint.size


async def test_the_copy_grows_with_the_log(log: LyingLog, tmp_path: Path) -> None:
    before = 0
    for size in (0, 0, 1, 2, 255, 256, 257, 300, 512, 1300, 1300):
        log.show_only(ENTRIES[:size])
        assert (await follow(log, tmp_path)).added == size - before
        before = size
        files = contents(tmp_path)
        expected = export_of(ENTRIES[:size], SIGNER)
        assert {path: files[path] for path in expected} == expected
        assert size_of(tmp_path) == size
        assert await damaged(tmp_path) == []


async def test_only_what_is_new_is_fetched(log: LyingLog, tmp_path: Path) -> None:
    await follow(log, tmp_path)
    log.show(ENTRIES[:700])
    log.asked.clear()
    await follow(log, tmp_path)
    assert set(log.asked) == {"checkpoint", "tile/entries/001", "tile/entries/002.p/188"}
    log.asked.clear()
    await follow(log, tmp_path)
    assert set(log.asked) == {"checkpoint"}


async def test_full_bundle_stands_in_for_a_partial_one_that_is_gone(
    log: LyingLog, tmp_path: Path
) -> None:
    log.show(ENTRIES[:512])
    log.files["checkpoint"] = export_of(ENTRIES[:300], SIGNER)["checkpoint"]
    del log.files["tile/entries/001.p/44"]
    await follow(log, tmp_path)
    assert size_of(tmp_path) == 300


async def test_busy_server_is_asked_again(log: LyingLog, tmp_path: Path) -> None:
    log.busy = 1
    assert (await follow(log, tmp_path)).added == 300


async def test_server_that_is_away_is_said_to_be(log: LyingLog, tmp_path: Path) -> None:
    log.busy = 10_000
    with pytest.raises(Unavailable, match="503"):
        await follow(log, tmp_path)
    log.busy, log.breaks_after = 0, 1
    with pytest.raises(Unavailable):
        await follow(log, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("kept", "shown", "at"),
    [(300, 700, 5), (300, 700, 299), (256, 300, 255), (300, 300, 17), (300, 200, 100), (1, 2, 0)],
)
async def test_a_log_with_two_histories_is_refused_and_the_proof_is_kept(
    log: LyingLog, tmp_path: Path, kept: int, shown: int, at: int
) -> None:
    log.show_only(ENTRIES[:kept])
    await follow(log, tmp_path)
    before = contents(tmp_path)
    log.show_only(forked(ENTRIES, at, shown))
    with pytest.raises(Forked) as refused:
        await follow(log, tmp_path)
    assert refused.value.reason == "FORKED"
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    assert size_of(tmp_path) == kept
    document = the_evidence(tmp_path)
    assert "two histories" in verify_evidence(document, POLICY)
    notes = {document[which]["checkpoint"] for which in ("older", "newer")}  # type: ignore[index]
    assert notes == {before["checkpoint"].decode(), log.files["checkpoint"].decode()}
    # Found again it is the same evidence; and when the log is itself again, the copy goes on.
    with pytest.raises(Forked):
        await follow(log, tmp_path)
    assert len(list((tmp_path / "evidence").iterdir())) == 1
    log.show_only(ENTRIES[:1300])
    await follow(log, tmp_path)
    assert size_of(tmp_path) == 1300


async def test_a_fork_without_its_tiles_is_refused_and_both_checkpoints_are_kept(
    log: LyingLog, tmp_path: Path
) -> None:
    await follow(log, tmp_path)
    log.files["checkpoint"] = export_of(forked(ENTRIES, 9, 700), SIGNER)["checkpoint"]
    log.files |= {p: c for p, c in export_of(ENTRIES[:700], SIGNER).items() if p != "checkpoint"}
    with pytest.raises(CannotFollow) as refused:
        await follow(log, tmp_path)
    assert refused.value.reason == "NOT_AS_SIGNED"
    document = the_evidence(tmp_path)
    assert document["proven"] is False
    with pytest.raises(TlogError, match="nothing that shows"):
        verify_evidence(document, POLICY)
    assert size_of(tmp_path) == 300


async def test_no_honest_history_passes_for_a_contradiction(log: LyingLog, tmp_path: Path) -> None:
    await follow(log, tmp_path)
    log.show_only(forked(ENTRIES, 5, 700))
    with pytest.raises(Forked):
        await follow(log, tmp_path)
    document = the_evidence(tmp_path)
    honest = export_of(ENTRIES[:700], SIGNER)["checkpoint"].decode()
    changes: list[object] = [
        document | {"newer": {"checkpoint": honest}},
        document | {"consistency_proof": []},
        document | {"root_of_newer_at_older_size": None},
        document | {"older": document["newer"]},
        document | {"older": {}},
        document | {"format": "other"},
        [],
    ]
    for changed in changes:
        with pytest.raises(TlogError):
            verify_evidence(changed, POLICY)
    with pytest.raises(TlogError, match="no known key"):
        verify_evidence(document, Policy.of_logs([STRANGER.verifier]))


async def test_a_log_that_lost_entries_is_refused(log: LyingLog, tmp_path: Path) -> None:
    await follow(log, tmp_path)
    for size in (299, 256, 0):
        log.show_only(ENTRIES[:size])
        with pytest.raises(CannotFollow) as refused:
            await follow(log, tmp_path)
        assert refused.value.reason == "ROLLED_BACK"
        assert f"{size} entries" in str(refused.value)
        assert size_of(tmp_path) == 300


async def test_a_changed_entry_is_named(log: LyingLog, tmp_path: Path) -> None:
    log.show(ENTRIES[:700])
    log.files["tile/entries/001"] = log.files["tile/entries/001"].replace(
        b"entry 400", b"entry 4OO"
    )
    for _ in range(2):  # what was written in the first pass is not believed in the second
        with pytest.raises(CannotFollow, match=r"tile/entries/001: entry 400 is not the one"):
            await follow(log, tmp_path)
        assert not (tmp_path / "checkpoint").exists()
    log.show(ENTRIES[:700])
    await follow(log, tmp_path)
    assert size_of(tmp_path) == 700


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("checkpoint", None, "there is no checkpoint"),
        ("checkpoint", b"\xff\xfe", "not UTF-8"),
        ("checkpoint", export_of(ENTRIES[:300], STRANGER)["checkpoint"], "no known key"),
        ("checkpoint", bytes(5_000_000), "more than"),
        ("tile/entries/001.p/44", None, "the file is missing"),
        ("tile/entries/000", bytes(20_000_000), "more than"),
        ("tile/entries/000", b"\0\5abc", "ends within entry 0"),
        ("tile/entries/000", b"\0\0", "holds 1 of 256"),
    ],
)
async def test_what_is_not_a_log_is_refused(
    log: LyingLog, tmp_path: Path, path: str, content: bytes | None, said: str
) -> None:
    log.files.pop(path)
    if content is not None:
        log.files[path] = content
    with pytest.raises(CannotFollow, match=said):
        await follow(log, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("with_a_copy", [False, True])
async def test_attack_a_tree_of_any_size_is_signed(
    log: LyingLog, tmp_path: Path, with_a_copy: bool
) -> None:
    """Whoever has the log's key may sign what there is not; that must not cost a mirror its memory."""
    if with_a_copy:
        await follow(log, tmp_path)
    before = contents(tmp_path) if with_a_copy else {}
    claimed = Checkpoint(ORIGIN, 2**60 + 1, bytes(32))
    log.files["checkpoint"] = sign_checkpoint(claimed, SIGNER).encode()
    with pytest.raises(CannotFollow) as refused:
        await follow(log, tmp_path)
    assert refused.value.reason == "NOT_SERVED"
    if with_a_copy:
        assert (tmp_path / "checkpoint").read_bytes() == before["checkpoint"]
    assert await damaged(tmp_path) == []


async def test_another_log_is_not_mixed_in(log: LyingLog, tmp_path: Path) -> None:
    other = Signer.from_seed("other.example/log", bytes(32))
    both = Policy.of_logs([SIGNER.verifier, other.verifier])
    await follow(log, tmp_path, both)
    log.show_only(ENTRIES[:700], other)
    with pytest.raises(CannotFollow) as refused:
        await follow(log, tmp_path, both)
    assert refused.value.reason == "OTHER_LOG"


async def test_without_a_quorum_nothing_is_taken_over(log: LyingLog, tmp_path: Path) -> None:
    witness = Cosigner.from_seed(
        "witness.example/w1", bytes(range(32, 64)), CosignatureKind.ED25519
    )
    policy = Policy.parse(
        f"log {SIGNER.verifier.vkey}\nwitness w1 {witness.verifier.vkey}\nquorum w1\n"
    )
    with pytest.raises(CannotFollow) as refused:
        await follow(log, tmp_path, policy)
    assert refused.value.reason == "NO_QUORUM"
    assert "w1" in str(refused.value)
    note = log.files["checkpoint"].decode()
    checkpoint = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
    log.files["checkpoint"] = (note + witness.cosign(checkpoint, 1_750_000_000)).encode()
    followed = await follow(log, tmp_path, policy)
    assert followed.cosigned == ("w1",)
    # A fresh cosignature of the same tree is taken over.
    log.files["checkpoint"] = (note + witness.cosign(checkpoint, 1_750_000_060)).encode()
    assert (await follow(log, tmp_path, policy)).added == 0
    assert (tmp_path / "checkpoint").read_bytes() == log.files["checkpoint"]


@pytest.mark.parametrize(
    "path",
    [
        "tile/entries/000",
        "tile/entries/002.p/188",
        "tile/0/001",
        "tile/0/002.p/188",
        "tile/1/000.p/2",
    ],
)
@pytest.mark.parametrize("damage", ["torn", "flipped", "gone"])
async def test_a_damaged_file_of_the_copy_is_named_and_mended(
    log: LyingLog, tmp_path: Path, path: str, damage: str
) -> None:
    log.show(ENTRIES[:700])
    await follow(log, tmp_path)
    before, file = contents(tmp_path), tmp_path / path
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    found = await damaged(tmp_path)
    assert any(path in one for one in found), found
    assert len(found) <= 2, found
    with opened(tmp_path, POLICY) as copy:
        async with http_session() as session:
            assert await copy.mend(HttpSource(session, log.url)) == 1
    assert contents(tmp_path) == before
    assert await damaged(tmp_path) == []


async def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(
    log: LyingLog, tmp_path: Path
) -> None:
    await follow(log, tmp_path)
    (tmp_path / "tile/0/000").unlink()
    os.mkfifo(tmp_path / "tile/0/000")
    assert any("tile/0/000: it is no file" in one for one in await damaged(tmp_path))


async def test_mending_takes_nothing_else_than_what_was_signed(
    log: LyingLog, tmp_path: Path
) -> None:
    await follow(log, tmp_path)
    (tmp_path / "tile" / "entries" / "000").unlink()
    log.show_only(forked(ENTRIES, 5, 300))
    with opened(tmp_path, POLICY) as copy:
        async with http_session() as session:
            with pytest.raises(CannotFollow):
                await copy.mend(HttpSource(session, log.url))
    assert not (tmp_path / "tile" / "entries" / "000").exists()


async def test_an_interrupted_pass_is_taken_up(log: LyingLog, tmp_path: Path) -> None:
    log.show(ENTRIES)
    log.breaks_after = 4  # the checkpoint and three bundles
    with pytest.raises(Unavailable):
        await follow(log, tmp_path)
    assert not (tmp_path / "checkpoint").exists()
    there = [one for one in ("000", "001", "002") if (tmp_path / "tile/entries" / one).exists()]
    # One of the files that the pass had written was torn by a power cut.
    (tmp_path / "tile" / "entries" / "000").write_bytes(b"\0\7torn")
    log.breaks_after = None
    log.asked.clear()
    await follow(log, tmp_path)
    assert size_of(tmp_path) == 1300
    assert log.asked["tile/entries/000"] == 1
    assert all(log.asked[f"tile/entries/{one}"] == 0 for one in there if one != "000")


async def test_two_mirrors_do_not_write_to_one_copy(log: LyingLog, tmp_path: Path) -> None:
    with opened(tmp_path, POLICY), pytest.raises(CannotFollow) as refused:
        await follow(log, tmp_path)
    assert refused.value.reason == "COPY_LOCKED"


@pytest.mark.parametrize("name", ["letters.txt", "checkpoint"])
async def test_a_folder_with_something_else_is_left_alone(
    log: LyingLog, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(CannotFollow) as refused:
        await follow(log, tmp_path)
    assert refused.value.reason == "COPY_DAMAGED"
    assert contents(tmp_path) == {name: b"mine\n"}


async def test_a_copy_whose_edge_is_damaged_takes_nothing_over(
    log: LyingLog, tmp_path: Path
) -> None:
    await follow(log, tmp_path)
    (tmp_path / "tile" / "0" / "001.p" / "44").write_bytes(bytes(44 * 32))
    log.show(ENTRIES[:700])
    with pytest.raises(CannotFollow):
        await follow(log, tmp_path)
    with opened(tmp_path, POLICY) as copy:
        assert isinstance(copy, Copy)
        assert copy.size == 300
    with contextlib.suppress(FileNotFoundError):
        assert (tmp_path / "checkpoint").read_bytes() != log.files["checkpoint"]
