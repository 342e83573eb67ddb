"""The schema's versions: an old database comes to the newest one whole, a newer one is refused."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from ledger.log import opened
from ledger.opening_rows import SqliteOpeningRows
from ledger.openings import finish
from ledger.schema import FOLDER, newest
from ledger.vault import Vault
from shared.errors import NotReady
from support.databases import SqliteUnderTest, vouch_for
from support.ledgers import LAPD, SIGNER, assert_whole, complete, decided, new_log
from support.vaults import KEYRING

RELEASE_0_1 = Path(__file__).parents[1] / "data" / "ledger_0_1.sql"
"""A file as release 0.1 wrote it: searches 1 (ended), 2 (open) and 3 (refused), and 256 rejections."""


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> SqliteUnderTest:
    """A file of release 0.1."""
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(RELEASE_0_1.read_text())
    connection.close()
    return SqliteUnderTest(path)


def tables(database: SqliteUnderTest) -> list[tuple[str, str]]:
    """Every table and index, as it was made."""
    rows = database.rows("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(name, " ".join(sql.split())) for name, sql in rows]


def test_versions_follow_each_other_and_none_goes_back() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    numbers = [int(one.revision) for one in steps]
    assert numbers == list(range(len(steps), 0, -1))
    assert steps[0].revision == newest()
    assert not [one for one in steps if hasattr(one.module, "downgrade")]


async def test_file_of_the_first_release_is_adopted_with_its_entries(old: SqliteUnderTest) -> None:
    old.open_for_writing().close()
    vouch_for(old)
    async with opened(old.open_for_writing(), SIGNER) as log:
        again, new = await log.sequencer.append(complete(decided(1), decided(4)))
        assert (again.index, again.existing) == (0, True)
        assert (new.index, new.existing) == (260, False)
    clear = {row[0] for row in old.rows("SELECT value FROM clear_openings")}
    assert clear
    assert [one for one in clear if one.encode() in old.path.read_bytes()]
    with contextlib.closing(SqliteOpeningRows.open(old.path)) as rows:
        vault = Vault(KEYRING, rows)
        finish(vault, rows)
        assert {one.value for index in range(3) for one in vault.open(index)} <= clear
        assert vault.find(LAPD, "officer", "OFFICER-1 ") == [0]
    kept = [path.read_bytes() for path in old.path.parent.iterdir()]
    assert not [one for one in clear if any(one.encode() in content for content in kept)]
    checked = assert_whole(old)
    assert (checked.checkpoint.size, checked.tiles, checked.open_searches) == (261, 1, 2)


def test_old_file_and_new_file_have_the_same_tables(old: SqliteUnderTest, tmp_path: Path) -> None:
    old.open_for_writing().close()
    (tmp_path / "new").mkdir()
    assert tables(old) == tables(SqliteUnderTest(new_log(tmp_path / "new").path))


def test_file_is_migrated_once(old: SqliteUnderTest) -> None:
    old.open_for_writing().close()
    before = old.path.read_bytes()
    old.open_for_writing().close()
    assert old.path.read_bytes() == before


def test_old_file_that_cannot_be_migrated_is_refused(old: SqliteUnderTest) -> None:
    old.change("DROP TABLE open_searches")
    before = old.path.read_bytes()
    with pytest.raises(NotReady, match="no such table") as refused:
        old.open_for_writing()
    assert refused.value.reason == "LEDGER_UNREADABLE"
    assert old.path.read_bytes() == before


def test_reader_does_not_touch_an_old_file(old: SqliteUnderTest) -> None:
    old.change("PRAGMA user_version = 2")
    old.change("CREATE TABLE alembic_version (version_num TEXT)")
    old.change("INSERT INTO alembic_version VALUES ('0000')")
    before = old.path.read_bytes()
    with pytest.raises(NotReady, match="start the ledger with it once") as refused:
        old.open_for_reading()
    assert refused.value.reason == "LEDGER_SCHEMA"
    assert old.path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (["UPDATE alembic_version SET version_num = '9999'"], "knows no later one than"),
        (["DELETE FROM alembic_version"], "no version of our schema"),
        (["DROP TABLE alembic_version"], "no version of our schema"),
        (["PRAGMA user_version = 3"], "no version of our schema"),
        (["PRAGMA user_version = 0"], "no version of our schema"),
    ],
)
def test_file_of_a_schema_unknown_here_is_refused(
    tmp_path: Path, changes: list[str], found: str
) -> None:
    path = new_log(tmp_path).path
    database = SqliteUnderTest(path)
    for one in changes:
        database.change(one)
    before = path.read_bytes()
    for opening in (database.open_for_writing, database.open_for_reading):
        with pytest.raises(NotReady, match=found) as refused:
            opening()
        assert refused.value.reason == "LEDGER_SCHEMA"
    assert path.read_bytes() == before
