"""Which certificate is presented to the bus: files that cannot be used, and files that are renewed."""

import asyncio
from pathlib import Path

import pytest
from cryptography import x509

from shared.bus import Bus
from shared.settings import BusSettings, SettingsError, TlsFiles
from support.buses_that_hang_up import ServerThatHangsUp
from support.nats_servers import Certificates, NatsUnderTest
from support.waiting import until

TIMEOUT_S = 20.0


def serial_of(tls: TlsFiles) -> int:
    return x509.load_pem_x509_certificate(tls.certificate.read_bytes()).serial_number


async def test_files_that_cannot_be_used_are_named(nats_server: NatsUnderTest) -> None:
    settings = nats_server.bus_settings("service", "broker")
    settings.tls.key.write_text("no key")
    with pytest.raises(SettingsError, match=settings.tls.key.name):
        await Bus.connect(settings, "broker")


async def test_renewed_certificate_is_presented_at_the_next_connection(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    server = ServerThatHangsUp(certificates.tls("service", "nats", listens=True))
    async with server.listening() as port:
        own = certificates.tls("service", "broker")
        first = serial_of(own)
        bus = await Bus.connect(BusSettings(servers=(f"tls://127.0.0.1:{port}",), tls=own), "x")
        renewed = serial_of(certificates.tls("service", "broker"))  # over the same files
        server.hang_up.set()

        async def shown() -> bool:
            return len(server.shown) > 1

        assert await until(shown)
        await bus.close()
    assert first != renewed
    assert server.shown[:2] == [first, renewed]


async def test_certificate_with_the_key_of_another_is_not_presented(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    server = ServerThatHangsUp(certificates.tls("service", "nats", listens=True))
    async with server.listening() as port:
        own = certificates.tls("service", "broker")
        first, old_key = serial_of(own), own.key.read_bytes()
        bus = await Bus.connect(BusSettings(servers=(f"tls://127.0.0.1:{port}",), tls=own), "x")
        certificates.tls("service", "broker")
        own.key.write_bytes(old_key)
        server.hang_up.set()
        async with asyncio.timeout(TIMEOUT_S):
            await server.second.wait()
        await bus.close()
    assert server.shown[:2] == [first, first]


async def test_certificate_renewed_while_nothing_can_be_connected_is_presented_in_the_end(
    tmp_path: Path,
) -> None:
    """Half of it is there when the connection ends, and the rest once it cannot be had again."""
    certificates = Certificates(tmp_path)
    server = ServerThatHangsUp(certificates.tls("service", "nats", listens=True))
    async with server.listening() as port:
        own = certificates.tls("service", "broker")
        old_key = own.key.read_bytes()
        bus = await Bus.connect(BusSettings(servers=(f"tls://127.0.0.1:{port}",), tls=own), "x")
        renewed = serial_of(certificates.tls("service", "broker"))  # over the same files
        new_key = own.key.read_bytes()
        own.key.write_bytes(old_key)
        server.hang_up.set()
    own.key.write_bytes(new_key)
    tried = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.set()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", port), asyncio.timeout(TIMEOUT_S):
        await tried.wait()
    server.hang_up.clear()
    async with server.listening(port):

        async def shown() -> bool:
            return server.shown[-1] == renewed

        assert await until(shown)
        await bus.close()
        server.hang_up.set()
