"""The monitor against honest, stale, shrinking and lying logs over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.mirror.concerns import Concern, concerns
from countersign.mirror.evidence import verify_evidence
from countersign.mirror.memory import Memory
from countersign.mirror.sources import CannotFollow, FolderSource, HttpSource, Source, http_session
from countersign.mirror.watch import AlarmKind, Look, Monitor, Watched
from support.clocks import NOON, ClockThatStandsStill
from support.exports import export_of
from support.ledgers import COMPLETER, LAPD, SIGNER, decided, failed, rejected
from support.lying_logs import LyingLog, lying_log
from tlog.checkpoint import Checkpoint
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.policy import Policy
from tlog.witness_protocol import monitoring_path

POLICY = Policy.of_logs([SIGNER.verifier])
BURBANK = "CA0191200"


def leaf_of(pending: object) -> bytes:
    return COMPLETER.complete(pending, "entry").leaf  # type: ignore[arg-type]  # of any event


def leaves_of(count: int) -> list[bytes]:
    """Decisions of the Los Angeles police, recorded at noon; every hundredth is Burbank's."""
    return [
        leaf_of(decided(number, agency=BURBANK if number % 100 == 50 else LAPD))
        for number in range(count)
    ]


LEAVES = leaves_of(700)


def others(at: int, size: int) -> list[bytes]:
    """Another history: entries from `at` on are of other searches."""
    return [*LEAVES[:at], *(leaf_of(decided(10_000 + number)) for number in range(at, size))]


class Watching:
    """A monitor that keeps what it was told, made anew for each look as by a program that is restarted."""

    def __init__(self, log: LyingLog, folder: Path) -> None:
        self.log = log
        self.folder = folder
        self.policy = POLICY
        self.against: str | None = None
        self.clock = ClockThatStandsStill()
        self.concerns: list[Concern] = []
        self.pauses = 0

    @property
    def evidence(self) -> list[Path]:
        folder = self.folder / "evidence"
        return sorted(folder.iterdir()) if folder.exists() else []

    async def pause(self, _: float) -> None:
        self.pauses += 1

    async def look(self) -> Look:
        async with http_session() as session:
            other: Source | None = None
            if self.against is not None and self.against.startswith("http"):
                other = HttpSource(session, self.against, pauses_s=())
            elif self.against is not None:
                other = FolderSource(Path(self.against))
            monitor = Monitor(
                HttpSource(session, self.log.url, pauses_s=()),
                other,
                self.policy,
                Watched([BURBANK], 300.0, self.folder / "evidence"),
                Memory.load(self.folder / "state.json", 0),
                self.clock,
                self.pause,
            )
            return await monitor.look(self.concerns.append)

    async def kinds(self) -> list[AlarmKind]:
        return [alarm.kind for alarm in (await self.look()).alarms]


@pytest.fixture(name="watching")
async def _watching(tmp_path: Path) -> AsyncIterator[Watching]:
    async with lying_log(LEAVES[:300]) as log:
        yield Watching(log, tmp_path)


async def test_entries_of_an_agency_are_told_once_each(watching: Watching) -> None:
    look = await watching.look()
    assert (look.new, look.concerning, look.alarms, look.exit_code) == (300, 3, [], 0)
    assert [one.index for one in watching.concerns] == [50, 150, 250]
    assert {(one.kind, one.agency, one.roles) for one in watching.concerns} == {
        ("search_decided", BURBANK, ("origin_agency",))
    }
    assert (await watching.look()).new == 0
    watching.log.show(LEAVES)
    look = await watching.look()
    assert (look.new, look.concerning) == (400, 4)
    assert [one.index for one in watching.concerns[3:]] == [350, 450, 550, 650]


def test_an_agency_is_found_in_every_role() -> None:
    entry = Entry()
    event = entry.search_decided
    event.summary.beneficiary_agency = LAPD
    event.summary.gallery_owner = LAPD
    event.decision.verdicts.add(party=LAPD)
    event.decision.verdicts.add(party=LAPD)
    (found,) = concerns(7, entry.SerializeToString(), [BURBANK, LAPD])
    assert found.roles == ("beneficiary_agency", "gallery_owner", "party")
    turned_away = rejected()
    turned_away.entry.request_rejected.caller = f"spiffe://countersign.test/agency/{LAPD}"
    (found,) = concerns(8, leaf_of(turned_away), [LAPD])
    assert (found.kind, found.roles) == ("request_rejected", ("caller",))
    (found,) = concerns(9, leaf_of(failed(1)), [LAPD])
    assert found.roles == ("origin_agency",)
    assert not list(concerns(9, leaf_of(failed(1)), [BURBANK]))


def test_an_agency_is_found_in_a_kind_of_a_later_version() -> None:
    # Field 1900, which is in no contract yet: a message with one string.
    text = b"\x0a\x09" + LAPD.encode()
    newer = leaf_of(rejected()) + b"\xe2\x76" + bytes([len(text)]) + text
    (found,) = concerns(1, newer, [LAPD])
    assert found.roles == ("unknown",)
    assert not list(concerns(1, b"\x0a\x0a" + LAPD.encode() + b"9", [LAPD]))
    (found,) = concerns(1, b"\xff\xff\x09" + LAPD.encode(), [LAPD])
    assert (found.kind, found.roles) == ("unknown", ("unknown",))


async def test_changed_entry_is_an_alarm(watching: Watching) -> None:
    watching.log.files["tile/entries/000"] = export_of(others(5, 300), SIGNER)["tile/entries/000"]
    look = await watching.look()
    assert look.exit_code == AlarmKind.NOT_VERIFIED.value == 1
    assert "entry 5 is not the one that was signed" in look.alarms[0].what


async def test_server_that_is_away_is_an_alarm(watching: Watching) -> None:
    watching.log.busy = 10
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.UNREACHABLE]
    assert look.exit_code == 3


async def test_a_log_without_a_sign_of_life_is_stale(watching: Watching) -> None:
    assert (await watching.look()).age_s == 0
    watching.clock.advance(seconds=300)
    assert await watching.kinds() == []
    watching.clock.advance(seconds=1)
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.STALE]
    assert (look.exit_code, look.age_s) == (4, 301)
    # A heartbeat: an entry, or a witness's fresh cosignature.
    beat = Entry()
    beat.recorded_at.FromDatetime(watching.clock.now())
    beat.heartbeat.SetInParent()
    watching.log.show([*LEAVES[:300], beat.SerializeToString()])
    assert await watching.kinds() == []


async def test_a_log_that_does_not_keep_its_promise_is_stale(watching: Watching) -> None:
    beat = Entry()
    beat.recorded_at.FromDatetime(NOON)
    beat.heartbeat.next_before.FromDatetime(NOON + timedelta(seconds=120))
    watching.log.show([*LEAVES[:300], beat.SerializeToString()])
    watching.clock.advance(seconds=120)
    assert await watching.kinds() == []
    watching.clock.advance(seconds=1)
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.STALE]
    assert "promised" in look.alarms[0].what


async def test_an_empty_log_is_stale_some_time_after_it_was_first_seen(watching: Watching) -> None:
    watching.log.show_only([])
    assert await watching.kinds() == []
    watching.clock.advance(seconds=301)
    assert await watching.kinds() == [AlarmKind.STALE]


async def test_a_fresh_cosignature_is_a_sign_of_life(watching: Watching) -> None:
    witness = Cosigner.from_seed(
        "witness.example/w1", bytes(range(32, 64)), CosignatureKind.ED25519
    )
    watching.policy = Policy.parse(
        f"log {SIGNER.verifier.vkey}\nwitness w1 {witness.verifier.vkey}\nquorum w1\n"
    )
    note = watching.log.files["checkpoint"].decode()
    checkpoint = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
    noon = int(NOON.timestamp())
    watching.clock.advance(seconds=1000)

    def cosigned_at(seconds: int) -> None:
        line = witness.cosign(checkpoint, noon + seconds)
        watching.log.files["checkpoint"] = (note + line).encode()

    assert await watching.kinds() == [AlarmKind.NOT_VERIFIED]  # no quorum
    cosigned_at(600)
    assert await watching.kinds() == [AlarmKind.STALE]
    cosigned_at(900)
    assert await watching.kinds() == []
    for ahead in (100_000, 2**62):  # a clock that is a day ahead vouches for nothing
        cosigned_at(ahead)
        assert await watching.kinds() == [AlarmKind.STALE]


@pytest.mark.promise(4)
async def test_attack_one_witness_keeps_a_frozen_view_alive(watching: Watching) -> None:
    honest, hostile = (
        Cosigner.from_seed(f"witness.example/w{n}", bytes([n] * 32), CosignatureKind.ED25519)
        for n in (1, 2)
    )
    watching.policy = Policy.parse(
        f"log {SIGNER.verifier.vkey}\nwitness w1 {honest.verifier.vkey}\n"
        f"witness w2 {hostile.verifier.vkey}\ngroup both all w1 w2\nquorum both\n"
    )
    note = watching.log.files["checkpoint"].decode()
    checkpoint = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
    noon = int(NOON.timestamp())
    watching.clock.advance(seconds=1000)
    for honest_at, age_s, alarms in ((400, 600, [AlarmKind.STALE]), (800, 200, [])):
        lines = honest.cosign(checkpoint, noon + honest_at) + hostile.cosign(checkpoint, noon + 999)
        watching.log.files["checkpoint"] = (note + lines).encode()
        look = await watching.look()
        assert ([alarm.kind for alarm in look.alarms], look.age_s) == (alarms, age_s)


async def test_a_log_that_shrinks_is_an_alarm_unless_it_was_a_moment(watching: Watching) -> None:
    watching.log.show(LEAVES[:600])
    assert await watching.kinds() == []
    watching.log.show_only(LEAVES[:300])
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.ROLLED_BACK]
    assert look.exit_code == 5
    assert watching.pauses == 3
    assert "shows 300 entries; the log signed 600" in look.alarms[0].what
    assert len(watching.evidence) == 1
    watching.log.show(LEAVES[:700])
    assert await watching.kinds() == []


@pytest.mark.promise(4)
@pytest.mark.parametrize("size", [200, 300, 600])
async def test_a_log_that_shows_another_history_later_is_a_split_view(
    watching: Watching, size: int
) -> None:
    await watching.look()
    earlier = dict(watching.log.files)
    watching.log.show_only(others(100, size))
    if size < 300:
        # That a smaller tree is another one can only be shown by the larger one's tiles.
        assert await watching.kinds() == [AlarmKind.ROLLED_BACK]
        watching.log.files = earlier | watching.log.files
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.SPLIT_VIEW]
    proof = look.alarms[0].evidence
    assert proof is not None
    assert "two histories" in verify_evidence(json.loads(proof.read_text()), POLICY)
    assert look.seen is None
    assert look.new == 0
    # It is told again at the next look.
    assert (await watching.look()).exit_code == 6


@pytest.mark.promise(4)
@pytest.mark.parametrize("size", [150, 300, 600])
async def test_two_views_of_one_log_are_found_and_proven(watching: Watching, size: int) -> None:
    """The server tells us one history and somebody else another."""
    async with lying_log(others(100, size)) as elsewhere:
        watching.against = elsewhere.url
        look = await watching.look()
        assert [alarm.kind for alarm in look.alarms] == [AlarmKind.SPLIT_VIEW]
        assert look.exit_code == 6
        (file,) = watching.evidence
        assert look.alarms[0].evidence == file
        assert "two histories" in verify_evidence(json.loads(file.read_text()), POLICY)


@pytest.mark.parametrize("size", [0, 1, 256, 299, 300])
async def test_a_view_that_is_behind_is_no_alarm(watching: Watching, size: int) -> None:
    async with lying_log(LEAVES[:size]) as elsewhere:
        watching.against = elsewhere.url
        assert await watching.kinds() == []
        assert watching.pauses == 0


async def test_a_log_that_hides_from_us_what_it_showed_elsewhere(
    watching: Watching, tmp_path: Path
) -> None:
    for path, content in export_of(LEAVES[:400], SIGNER).items():
        file = tmp_path / "mirror" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    watching.against = str(tmp_path / "mirror")
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.ROLLED_BACK]
    assert "shows 300 entries; the log signed 400" in look.alarms[0].what
    # It was only a moment behind: it grows while we wait.
    watching.pauses = 0

    async def grow(_: float) -> None:
        watching.log.show(LEAVES[:500])

    watching.pause = grow  # type: ignore[method-assign]  # waits for the log
    assert await watching.kinds() == []


@pytest.mark.parametrize(("size", "exit_code"), [(300, 0), (250, 0), (400, 5)])
async def test_against_a_witness_which_has_no_tiles(
    watching: Watching, size: int, exit_code: int
) -> None:
    async with lying_log() as witness:
        witness.files.clear()
        path = monitoring_path(SIGNER.verifier.name)
        witness.files[path] = export_of(LEAVES[:size], SIGNER)["checkpoint"]
        watching.against = witness.url
        assert (await watching.look()).exit_code == exit_code
        witness.files[path] = export_of(others(20, 250), SIGNER)["checkpoint"]
        assert (await watching.look()).exit_code == 6


async def test_a_source_of_another_log_is_said_to_be_one(watching: Watching) -> None:
    async with lying_log() as elsewhere:
        elsewhere.files = {"checkpoint": b"letters\n"}
        watching.against = elsewhere.url
        assert await watching.kinds() == [AlarmKind.NOT_VERIFIED]
        elsewhere.files = {}
        assert await watching.kinds() == [AlarmKind.NOT_VERIFIED]
    assert await watching.kinds() == [AlarmKind.UNREACHABLE]


async def test_what_is_remembered_is_verified_again(watching: Watching) -> None:
    await watching.look()
    file = watching.folder / "state.json"
    document = json.loads(file.read_text())
    assert (document["size"], document["next_index"]) == (300, 300)
    file.write_text(json.dumps(document | {"checkpoint": "mine"}))
    assert await watching.kinds() == [AlarmKind.NOT_VERIFIED]
    for damaged in ("", "[]", "{}", json.dumps(document | {"format": "x"}), "\xff"):
        file.write_text(damaged, encoding="latin-1")
        with pytest.raises(CannotFollow):
            Memory.load(file, 0)


def test_growth_is_remembered_as_a_sign_of_life(tmp_path: Path) -> None:
    memory = Memory.load(tmp_path / "none.json", 5)
    assert (memory.next_index, memory.note, memory.grown_at) == (5, None, None)
    memory.grown_at = datetime(2026, 1, 1, tzinfo=UTC)
    assert memory.seen(POLICY) is None


@pytest.mark.promise(4)
async def test_a_rollback_does_not_hide_behind_an_error(watching: Watching) -> None:
    watching.log.show(LEAVES[:600])
    assert await watching.kinds() == []
    watching.log.show_only(LEAVES[:300])
    watching.log.tiles_status = 500
    look = await watching.look()
    assert [alarm.kind for alarm in look.alarms] == [AlarmKind.ROLLED_BACK]
    assert len(watching.evidence) == 1


@pytest.mark.promise(4)
async def test_two_views_are_compared_also_when_the_state_cannot_be_kept(
    watching: Watching,
) -> None:
    async with lying_log(others(100, 300)) as elsewhere:
        watching.against = elsewhere.url
        (watching.folder / ".state.json.new").mkdir()  # where it is written first
        look = await watching.look()
        assert [alarm.kind for alarm in look.alarms] == [AlarmKind.SPLIT_VIEW]
        assert "state.json" in look.not_kept


@pytest.mark.promise(4)
async def test_an_alarm_is_raised_also_when_its_evidence_cannot_be_saved(
    watching: Watching,
) -> None:
    async with lying_log(others(100, 300)) as elsewhere:
        watching.against = elsewhere.url
        (watching.folder / "evidence").write_bytes(b"in the way")
        look = await watching.look()
        assert [alarm.kind for alarm in look.alarms] == [AlarmKind.SPLIT_VIEW]
        assert look.alarms[0].evidence is None
        assert "could not be saved" in look.alarms[0].what
        assert look.exit_code == 6
