"""An agency's system at work in a complete installation, and the bus as the broker sees it.

async with at_work(installation, LAPD) as lapd:
    prepared = lapd.sealed(own_case(), probe())
    await lapd.submit(prepared)
    search, opened = await lapd.ended(prepared)
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import nats
import nats.js.errors

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client import Client, ClientSettings, OpenedAnswer, verify_receipt
from countersign.client.ledger import LedgerClient
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from countersign.type.v1.search_pb2 import SearchFacts
from shared.errors import Unavailable
from shared.identity import SpiffeId
from shared.settings import BusSettings
from shared.signing import SigningKey
from shared.tls import bus_context
from support.brokers import OFFICER
from support.installations import InstallationUnderTest, ProcessUnderTest
from support.waiting import until

DECIDED_AND_ANSWERED: Final = ["search_decided", "search_answered"]


@dataclass(frozen=True)
class AgencyAtWork:
    """One agency's system, connected to broker and ledger."""

    settings: ClientSettings
    client: Client
    ledger: LedgerClient

    @property
    def provider(self) -> DevelopmentIdentityProvider:
        """The agency's identity provider."""
        assert self.settings.identity_provider
        key = SigningKey.load(self.settings.identity_provider.signing_key)
        return DevelopmentIdentityProvider(self.settings.identity_provider.issuer, key)

    def sealed(self, facts: SearchFacts, probe: bytes) -> PreparedSearch:
        """The bytes as they are, sealed; to LACRIS when the system has no key."""
        systems = self.client.trust.systems
        keys = systems.get(facts.system) or systems["lacris"]
        return seal_search(facts, probe, keys.sealing_public_key)

    async def submit(
        self, prepared: PreparedSearch, officer: str = OFFICER, wait_s: float = 0
    ) -> pb.Search:
        """Submits in an officer's name."""
        token = self.provider.token(officer, prepared.search_id)
        return await self.client.submit(prepared, token, wait_s)

    async def submit_until_taken(self, prepared: PreparedSearch) -> pb.Search:
        """Submits again while a part is still coming back."""

        async def taken() -> pb.Search | None:
            try:
                return await self.submit(prepared)
            except Unavailable:
                return None

        return await until(taken)

    async def ended(
        self, prepared: PreparedSearch, officer: str = OFFICER
    ) -> tuple[pb.Search, OpenedAnswer]:
        """The search once it is answered or failed, everything verified."""
        search = await self.client.wait(prepared.search_id)
        return search, self.client.open_answer(prepared, search, officer)

    async def entries(self, search_id: str) -> list[Entry]:
        """What is on record of a search, in order."""
        wanted = ListEntriesRequest(search_id=search_id)
        return [record.entry async for record in self.ledger.entries(wanted)]

    async def newest(self, kind: str) -> Entry:
        """The newest entry of a kind. Of an id that is not spent, only a commitment is on record."""
        found = [
            record.entry async for record in self.ledger.entries(ListEntriesRequest(kind=kind))
        ]
        return found[-1]

    async def kinds(self, search_id: str) -> list[str]:
        """The kinds of those entries."""
        return [str(entry.WhichOneof("event")) for entry in await self.entries(search_id)]

    def end_of(self, search: pb.Search) -> Entry:
        """The terminal entry, its receipt verified."""
        return verify_receipt(search.end_receipt, self.client.trust)


@contextlib.asynccontextmanager
async def at_work(
    installation: InstallationUnderTest, ori: str, settings: ClientSettings | None = None
) -> AsyncIterator[AgencyAtWork]:
    """The system of an agency; with other settings, of whoever they say."""
    settings = settings or ClientSettings.load(installation.client(ori))
    async with Client.connect(settings) as client, LedgerClient.connect(settings) as ledger:
        yield AgencyAtWork(settings, client, ledger)


def provider_of(
    settings: ClientSettings, signing: ClientSettings, **options: Any
) -> DevelopmentIdentityProvider:
    """A provider that says it is the first agency's, with a key of the second's."""
    assert settings.identity_provider
    assert signing.identity_provider
    key = SigningKey.load(signing.identity_provider.signing_key)
    return DevelopmentIdentityProvider(settings.identity_provider.issuer, key, **options)


@contextlib.contextmanager
def stopped(process: ProcessUnderTest) -> Iterator[None]:
    """Killed, and started again at the end."""
    process.kill()
    try:
        yield
    finally:
        process.start()


class OrdersOnTheBus:
    """The work queue of one system."""

    def __init__(self, jetstream: Any, system: str) -> None:
        self._jetstream = jetstream
        self._system = system
        self._stream = f"ORDERS_{system.upper()}"

    async def sent(self) -> int:
        """How many orders were ever put there."""
        return int((await self._jetstream.stream_info(self._stream)).state.last_seq)

    async def being_run(self) -> int:
        """How many a connector has and has not acknowledged."""
        info = await self._jetstream.consumer_info(self._stream, "connector")
        return int(info.num_ack_pending)

    @contextlib.asynccontextmanager
    async def delivered_again_after(self, wait: timedelta) -> AsyncIterator[None]:
        """Takes an unacknowledged order for lost sooner than after the broker's minute, for a while."""
        info = await self._jetstream.consumer_info(self._stream, "connector")
        before, info.config.ack_wait = info.config.ack_wait, wait.total_seconds()
        await self._jetstream.add_consumer(self._stream, info.config)
        yield
        info.config.ack_wait = before
        await self._jetstream.add_consumer(self._stream, info.config)

    async def waits(self, search_id: str) -> bool:
        """True while the order of a search is there."""
        return await self._holds(self._stream, f"orders.{self._system}.{search_id}")

    async def gone(self, search_id: str) -> bool:
        """True once it is not."""
        return not await self.waits(search_id)

    async def answered(self, search_id: str) -> bool:
        """True once an answer is on the bus, whether it is recorded or not."""
        return await self._holds("ANSWERS", f"answers.{self._system}.{search_id}")

    async def _holds(self, stream: str, subject: str) -> bool:
        try:
            await self._jetstream.get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return False
        return True


@contextlib.asynccontextmanager
async def orders_on_the_bus(
    installation: InstallationUnderTest, system: str = "lacris"
) -> AsyncIterator[OrdersOnTheBus]:
    """What the broker may see of the bus."""
    server = f"tls://127.0.0.1:{installation.ports.nats}"
    tls = installation.layout.tls(SpiffeId(TRUST_DOMAIN, "service", "broker"))
    connection = await nats.connect(
        server,
        tls=bus_context(BusSettings(servers=(server,), tls=tls)),
        tls_handshake_first=True,
        inbox_prefix="_INBOX_broker",
        reconnect_time_wait=0.2,
        max_reconnect_attempts=-1,
    )
    try:
        yield OrdersOnTheBus(connection.jetstream(), system)
    finally:
        await connection.close()
