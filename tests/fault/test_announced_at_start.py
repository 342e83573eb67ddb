"""What a start has to put on record while the log may not sign yet: readers are served, nothing is lost."""

import asyncio
import contextlib
from pathlib import Path

import pytest
from aiohttp import web

from countersign.ledger.v1.entry_pb2 import Entry
from ledger.announcing import announcing
from ledger.config import LedgerSettings
from ledger.from_settings import notes_of
from ledger.keys import FileKey, LogKeys, new_post_quantum_key
from ledger.log import opened
from ledger.restored import Restored, note
from ledger.restored_notes import FileNotes
from ledger.sqlite_storage import SqliteDatabase, SqliteStorage
from support.feeding import ScriptedWitness, cosign
from support.ledgers import (
    ORIGIN,
    SIGNER,
    LedgerProcess,
    complete,
    new_log,
    rejected,
    write_settings,
)
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.waiting import WAIT_S_MAX, until
from support.witnesses_around import COSIGNERS, Around

NEW = FileKey.from_seed(ORIGIN, b"n" * 32)

pytestmark = [pytest.mark.fault, pytest.mark.promise(4)]


@pytest.fixture(name="path")
async def _path(tmp_path: Path) -> Path:
    """A log with one entry, which the old key alone has signed."""
    path = new_log(tmp_path).path
    async with opened(SqliteStorage.open(path), SIGNER) as log:
        await log.sequencer.append(complete(rejected()))
    return path


@pytest.fixture(name="around")
def _around(tmp_path: Path) -> Around:
    folder = tmp_path / "around"
    folder.mkdir()
    return Around(folder)


class Late:
    """A witness that is not there at first."""

    is_there = False

    def __call__(self, body: bytes) -> web.Response | bytes:
        return cosign(body, COSIGNERS["w2"]) if self.is_there else web.Response(status=503)


async def test_changed_keys_are_announced_as_soon_as_the_log_signs(
    path: Path, around: Around, tmp_path: Path
) -> None:
    late, keys, none = Late(), LogKeys(SIGNER, NEW), tmp_path / "restored"
    async with (
        ScriptedWitness(late).serving() as url,
        around.there("w1", w2=url),
        around.log(path, "always", keys) as log,
        announcing(log, keys, FileNotes(none), TRUST_DOMAIN),
    ):
        assert log.sequencer.published.size == 1
        assert not log.sequencer.writable
        late.is_there = True

        async def announced() -> bool:
            return log.sequencer.published.size == 2

        await until(announced)
        rotated = Entry.FromString(await log.archive.entry(1)).key_rotated
        assert list(rotated.new_keys) == [SIGNER.vkey, NEW.vkey]
    async with (
        around.log(path, keys=keys) as log,
        announcing(log, keys, FileNotes(none), TRUST_DOMAIN),
    ):
        assert log.sequencer.published.size == 2


async def test_a_damaged_note_ends_the_process_also_when_it_is_read_later(
    path: Path, around: Around, tmp_path: Path
) -> None:
    late, keys, damaged = Late(), LogKeys(SIGNER, NEW), tmp_path / "restored"
    damaged.write_text("{}")
    async with (
        ScriptedWitness(late).serving() as url,
        around.there("w1", w2=url),
        around.log(path, "always", keys) as log,
        announcing(log, keys, FileNotes(damaged), TRUST_DOMAIN),
    ):
        assert not log.sequencer.ended.is_set()
        late.is_there = True
        async with asyncio.timeout(WAIT_S_MAX):
            await log.sequencer.ended.wait()


@pytest.mark.parametrize("changed", ["keys", "restored"])
async def test_program_that_cannot_announce_yet_serves_all_the_same(
    path: Path, around: Around, tmp_path: Path, nats_server: NatsUnderTest, changed: str
) -> None:
    """The real process: it listens, says why it does not sign, and ends when told."""
    config = write_settings(tmp_path, nats_server)
    settings = await asyncio.to_thread(config.read_text)
    settings += (
        f'[witnessing]\npolicy = "{around.folder / "ledger.policy"}"\n'
        f'cosigned_checkpoint = "{around.folder / "cosigned"}"\nheard_at_start = "always"\n'
    )
    if changed == "keys":
        new_post_quantum_key(tmp_path / "new.key", ORIGIN)
        settings = settings.replace('["note.pem"]', '["note.pem", "new.key"]')
    await asyncio.to_thread(config.write_text, settings)
    if changed == "restored":
        with contextlib.closing(SqliteDatabase(path).open_for_reading()) as reading:
            root = reading.head().root.hex()
        brought_back = Restored("RESTORE_CAUSE_BACKUP", 1, root, "", "")
        note(notes_of(LedgerSettings.load(config)), brought_back)
    process = LedgerProcess(config)
    await process.start()
    assert process.stop() == 0
    said = process.log
    assert "WITNESSES_SILENT" in said
    assert "announced later" in said
