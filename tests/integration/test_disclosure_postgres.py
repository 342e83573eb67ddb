"""Openings of a ledger on PostgreSQL: read by right and on record, and destroyed by two people."""

import asyncio

import pytest

from countersign.ledger.v1 import disclosure_pb2 as pb
from shared.errors import NotAllowed, NotFound
from support.databases import DatabaseUnderTest
from support.disclosures import COMMISSION, INSPECTOR, POLICE, LedgerUnderTest
from support.ledgers import assert_whole
from support.postgres import PostgresUnderTest


@pytest.fixture(name="kept")
def _kept(postgres_database: PostgresUnderTest) -> DatabaseUnderTest:
    return postgres_database


@pytest.mark.promise(7)
async def test_openings_are_read_by_right_and_the_reading_is_on_record(
    ledger: LedgerUnderTest,
) -> None:
    assert await ledger.disclose(POLICE, 1, "case_number", "officer") == ["case-1", "officer-1"]
    assert await ledger.disclose(COMMISSION, 2, "officer") == ["officer-2"]
    for who, index in ((COMMISSION, 3), (POLICE, 2), (INSPECTOR, 0)):
        with pytest.raises(NotAllowed):
            await ledger.disclose(who, index, "officer")
    read = [entry.opening_read.entry_index for _, entry in await ledger.entries("opening_read")]
    assert read == [1, 2]


@pytest.mark.promise(5)
async def test_expungement_leaves_no_byte_of_the_value_and_every_proof(
    ledger: LedgerUnderTest, postgres_database: PostgresUnderTest
) -> None:
    sealed = [
        row[0]
        for row in postgres_database.rows("SELECT sealed FROM openings WHERE entry_index = 1")
    ]
    before = b"".join(postgres_database.files().values())
    assert all(one in before for one in sealed), "the search for bytes would find it"
    requested = await ledger.request(COMMISSION, 1)
    assert await ledger.disclose(COMMISSION, 1, "officer") == ["officer-1"], "not approved yet"
    done = await ledger.approve(INSPECTOR, requested)
    assert (done.openings_destroyed, list(done.request.indexes)) == (3, [1])
    assert done.request.state == pb.EXPUNGE_STATE_EXPUNGED
    with pytest.raises(NotFound, match="was destroyed"):
        await ledger.disclose(COMMISSION, 1, "officer")
    assert await ledger.disclose(COMMISSION, 0, "officer") == ["officer-0"]
    postgres_database.vacuum()
    after = b"".join(postgres_database.files().values())
    assert b"CA0194200" in after
    for secret in (*sealed, b"officer-1", b"case-1", b"SECRET-ORDER"):
        assert secret not in after
    ((_, entry),) = await ledger.entries("openings_expunged")
    assert entry.openings_expunged.requested_index == requested
    # The check opens every opening that is left, with the keys of the process.
    assert await asyncio.to_thread(lambda: assert_whole(postgres_database).openings) > 0
