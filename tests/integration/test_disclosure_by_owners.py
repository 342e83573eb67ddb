"""Who may read openings is what owners published in this ledger, and nothing else holds it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from registry.publication import pending_entries
from registry.signature import Signed
from shared.bus import connected
from shared.errors import NotAllowed, NotAuthentic, Unavailable
from shared.signing import SigningKey
from support.disclosures import COMMISSION, LASD, POLICE, LedgerUnderTest, ledger_in
from support.following_brokers import development_provider, provider_in_toml
from support.ledgers import LAPD, decided
from support.nats_servers import NatsUnderTest
from support.registrations import agency, document, signed, signer
from support.waiting import until

pytestmark = pytest.mark.promise(9)

TIMEOUT_S = 20.0
SIGNERS = {owner: [signer(owner).vkey] for owner in (LAPD, LASD, "US-CA")}


def california(rights: str) -> str:
    return agency("US-CA") + (
        '\n[oversight.police-commission]\nname = "Commission"\n'
        f'jurisdictions = ["US-CA"]\nrights = [{rights}]\n'
    )


def vouched_for(key: SigningKey, owner: str = LAPD) -> str:
    said = provider_in_toml(development_provider(key)).replace(
        "https://id.lapd.test", "https://lapd.example"
    )
    return agency(owner).replace("[keys]\n", f"[keys]\n{said}")


class Owners:
    """Register as the policy service would have it."""

    def __init__(self, nats: NatsUnderTest) -> None:
        self._nats = nats
        self._head: int | None = None

    async def register(self, public: str, serial: int) -> None:
        async with connected(self._nats.bus_settings("service", "policy"), "policy") as bus:
            said: Signed = signed(document(public), serial)
            for one in pending_entries(said, None):
                pending = PendingEntry(entry=one.entry)
                if self._head is not None:
                    pending.entry.previous_document = self._head
                request = pb.PublishDocumentRequest(document=pending)
                done = await bus.request(
                    "ledger.publish", request, pb.PublishDocumentResponse, TIMEOUT_S
                )
                assert not done.appended.existing
                self._head = done.appended.receipt.index


@contextlib.asynccontextmanager
async def served(folder: Path, nats: NatsUnderTest) -> AsyncIterator[LedgerUnderTest]:
    async with ledger_in(folder, nats, signers=SIGNERS) as ledger:
        yield ledger


def lose_what_is_derived(folder: Path) -> None:
    for derived in folder.glob("index.duckdb*"):
        derived.unlink()


async def reads(ledger: LedgerUnderTest, index: int) -> bool:
    """Whether the commission may; waits while a ledger that was just started still reads."""

    async def told() -> str | None:
        try:
            await ledger.disclose(COMMISSION, index, "officer")
        except NotAllowed as error:
            return error.reason
        except Unavailable:
            return None
        return "read"

    said = await until(told)
    assert said in ("read", "NOT_ENTITLED")
    return said == "read"


async def test_rights_are_those_that_are_on_record_and_end_with_the_next_document(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    owners = Owners(nats_server)
    async with served(tmp_path, nats_server) as ledger:
        await ledger.append(decided(0), decided(1, agency=LASD), decided(2, agency="TX0000001"))
        assert not await reads(ledger, 0)
        await owners.register(agency(LAPD), 1)
        await owners.register(agency(LASD), 1)
        assert not await reads(ledger, 0)
        await owners.register(california('"disclose"'), 1)
        # With the answer to its publisher, not some time later.
        assert await reads(ledger, 0)
        assert await reads(ledger, 1)
        assert not await reads(ledger, 2)
    lose_what_is_derived(tmp_path)
    async with served(tmp_path, nats_server) as ledger:
        assert await reads(ledger, 0)
        assert not await reads(ledger, 2)
        await owners.register(california('"find"'), 2)
        assert not await reads(ledger, 0)
    async with served(tmp_path, nats_server) as ledger:
        assert not await reads(ledger, 0)


async def test_an_agencys_officer_is_vouched_for_by_the_provider_that_it_registered(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    owners = Owners(nats_server)
    async with served(tmp_path, nats_server) as ledger:
        await ledger.append(decided(0))
        await owners.register(agency(LAPD), 1)
        with pytest.raises(NotAuthentic) as refused:
            await ledger.disclose(POLICE, 0, "officer")
        assert refused.value.reason == "IDENTITY_PROVIDER_UNKNOWN"
        key = SigningKey.load(tmp_path / "provider.pem")
        await owners.register(vouched_for(key), 2)
        assert await ledger.disclose(POLICE, 0, "officer") == ["officer-0"]
        await owners.register(vouched_for(SigningKey.generate()), 3)
        with pytest.raises(NotAuthentic):
            await ledger.disclose(POLICE, 0, "officer")
