"""A real gRPC server with mutual TLS around a servicer that does what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import (
    BrokerServiceServicer,
    BrokerServiceStub,
    add_BrokerServiceServicer_to_server,
)
from countersign.installation.files import write_public, write_secret
from countersign.installation.pki import Authority
from shared import rpc
from shared.clock import SystemClock
from shared.errors import ServiceError
from shared.identity import Kind, SpiffeId
from shared.settings import ListenSettings, TlsFiles
from support.brokers import own_case

SERVICE = "countersign.broker.v1.BrokerService"
TRUST_DOMAIN = "countersign.test"
LAPD, LASD = "CA0194200", "CA0190000"
SEARCH = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10"
SECRET = "the narrative of a case"
TIMEOUT_S = 30.0


class ServicerThatIsTold(BrokerServiceServicer):
    """Does what the test says, and keeps who called."""

    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.callers: list[SpiffeId] = []
        self.answer_bytes = 0
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def CheckSearch(  # noqa: N802  # named by the contract
        self, request: pb.CheckSearchRequest, context: rpc.Context
    ) -> pb.CheckSearchResponse:
        """Answers, raises or holds."""
        self.callers.append(rpc.caller(context))
        self.entered.set()
        try:
            await self.go_on.wait()
        finally:
            self.left.set()
        if self.raises:
            raise self.raises
        response = pb.CheckSearchResponse()
        response.receipt.leaf = bytes(self.answer_bytes)
        return response

    async def WatchSearch(  # noqa: N802  # likewise
        self, request: pb.WatchSearchRequest, context: rpc.Context
    ) -> AsyncIterator[pb.WatchSearchResponse]:
        """Two states, then an error if there is one, or no end."""
        self.entered.set()
        try:
            for state in (pb.SEARCH_STATE_PENDING, pb.SEARCH_STATE_ANSWERED):
                yield pb.WatchSearchResponse(search=pb.Search(state=state))
            await self.go_on.wait()
            if self.raises:
                raise self.raises
        finally:
            self.left.set()


class Pki:
    """Authorities, and who was issued what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = SystemClock().now()
        self.authority = Authority.create(TRUST_DOMAIN, self.now)
        write_public(folder / "authority.pem", self.authority.certificate_pem)

    def issue(
        self,
        kind: Kind,
        name: str,
        *,
        listens: bool = False,
        domain: str = TRUST_DOMAIN,
        authority: Authority | None = None,
        file: str = "",
    ) -> TlsFiles:
        """Files with a new certificate. Written over, when the file exists."""
        file = file or f"{domain}-{kind}-{name}"
        issued = (authority or self.authority).issue(
            SpiffeId(domain, kind, name), self.now, listens=listens
        )
        tls = TlsFiles(
            certificate=self.folder / f"{file}.pem",
            key=self.folder / f"{file}-key.pem",
            authority=self.folder / "authority.pem",
        )
        write_public(tls.certificate, issued.certificate_pem)
        write_secret(tls.key, issued.key_pem)
        return tls


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def servicer() -> ServicerThatIsTold:
    return ServicerThatIsTold()  # type: ignore[abstract]  # the others stay unimplemented


def _only_lapd(caller: SpiffeId) -> bool:
    return caller.kind == "agency" and caller.name == LAPD


@pytest.fixture
async def server(pki: Pki, servicer: ServicerThatIsTold) -> AsyncIterator[rpc.RunningServer]:
    """A server on which LAPD may check and watch, and nobody anything else."""
    running = await rpc.start_server(
        lambda grpc_server: add_BrokerServiceServicer_to_server(servicer, grpc_server),
        services=[SERVICE],
        listen=ListenSettings(
            address="127.0.0.1:0",
            tls=pki.issue("service", "broker", listens=True),
            port_file=pki.folder / "port",
        ),
        trust_domain=TRUST_DOMAIN,
        access={f"/{SERVICE}/{name}": _only_lapd for name in ("CheckSearch", "WatchSearch")},
    )
    yield running
    await running.stop(0)


Channels = Callable[[TlsFiles], grpc.aio.Channel]


@pytest.fixture
async def channels(server: rpc.RunningServer) -> AsyncIterator[Channels]:
    """Opens channels to the server."""
    async with contextlib.AsyncExitStack() as stack:
        opened: list[grpc.aio.Channel] = []

        def open_channel(tls: TlsFiles) -> grpc.aio.Channel:
            address = f"127.0.0.1:{server.port}"
            # Else a test would have to wait until a call looks.
            opened.append(rpc.open_channel(address, tls, look_every_s=0))
            return opened[-1]

        yield open_channel
        for channel in opened:
            await stack.enter_async_context(channel)


@pytest.fixture
def lapd(pki: Pki, channels: Channels) -> grpc.aio.Channel:
    return channels(pki.issue("agency", LAPD))


def sound() -> pb.CheckSearchRequest:
    return pb.CheckSearchRequest(facts=own_case(), officer_token="a token")


async def check(
    channel: grpc.aio.Channel,
    request: pb.CheckSearchRequest | None = None,
    timeout_s: float = TIMEOUT_S,
) -> pb.CheckSearchResponse:
    stub = BrokerServiceStub(channel)
    return await rpc.call(
        stub.CheckSearch, request or sound(), name=f"{SERVICE}/CheckSearch", timeout_s=timeout_s
    )


async def refusal(
    channel: grpc.aio.Channel, request: pb.CheckSearchRequest | None = None
) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await check(channel, request)
    return caught.value
