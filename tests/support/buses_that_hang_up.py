"""A NATS server that one can have hang up, and that says which certificates it was shown."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from cryptography import x509

from shared.settings import TlsFiles


class ServerThatHangsUp:
    """Speaks just enough of the NATS protocol, and keeps the certificates that it was shown."""

    def __init__(self, tls: TlsFiles) -> None:
        self.shown: list[int] = []
        self.second = asyncio.Event()
        self.hang_up = asyncio.Event()
        self.last_words = b""
        self._serving: list[asyncio.Task[None]] = []
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.authority)
        self._context.load_cert_chain(tls.certificate, tls.key)
        self._context.verify_mode = ssl.CERT_REQUIRED

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._served, "127.0.0.1", port, ssl=self._context)
        async with server:
            yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.shown.append(x509.load_der_x509_certificate(shown).serial_number)
        if len(self.shown) == 2:
            self.second.set()
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","proto":1,"headers":true}\r\n')
        answering = asyncio.create_task(self._answer_pings(reader, writer))
        await self.hang_up.wait()
        answering.cancel()
        writer.write(self.last_words)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _answer_pings(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
