"""The ledger's file: one process has it, and only one that can be this log is opened."""

from pathlib import Path

import pytest

from ledger.log import begin_log, opened
from ledger.sequencer import Placed, Sequencer
from ledger.storage import Storage
from shared.errors import NotReady
from support.ledgers import (
    SIGNER,
    complete,
    decided,
    new_log,
)
from tlog.note import Signer


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return new_log(tmp_path)


async def append(sequencer: Sequencer, *numbers: int) -> list[Placed]:
    return await sequencer.append(complete(*(decided(number) for number in numbers)))


async def test_second_process_does_not_get_the_file(path: Path) -> None:
    async with opened(Storage.open(path), SIGNER):
        with pytest.raises(NotReady, match="another process") as refused:
            Storage.open(path)
        assert refused.value.reason == "LEDGER_LOCKED"
    Storage.open(path).close()


def test_missing_file_does_not_begin_a_second_history(tmp_path: Path) -> None:
    with pytest.raises(NotReady) as refused:
        Storage.open(tmp_path / "ledger.sqlite")
    assert refused.value.reason == "LEDGER_MISSING"


def test_existing_file_is_not_begun_again(path: Path) -> None:
    with pytest.raises(NotReady) as refused:
        begin_log(path, SIGNER)
    assert refused.value.reason == "LEDGER_EXISTS"


def test_file_is_readable_by_its_user_only(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(NotReady) as refused:
        Storage.open(path)
    assert refused.value.reason == "LEDGER_UNREADABLE"


async def test_key_of_another_log_does_not_open_it(path: Path) -> None:
    stranger = Signer.from_seed(SIGNER.verifier.name, bytes(32))
    with pytest.raises(NotReady) as refused:
        async with opened(Storage.open(path), stranger):
            pass
    assert refused.value.reason == "LEDGER_KEY_OR_CHECKPOINT"
