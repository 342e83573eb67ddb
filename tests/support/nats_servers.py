"""A real NATS server with our configuration, for a test that needs the bus.

`start` takes about 30 ms. `kill` is SIGKILL; a `start` after it uses the same port and store.
"""

import contextlib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from countersign.installation.files import write_public, write_secret
from countersign.installation.nats_config import NatsServer, render
from countersign.installation.pki import Authority
from countersign.installation.ports import free_ports
from shared.clock import SystemClock
from shared.identity import Kind, SpiffeId
from shared.settings import BusSettings, TlsFiles
from support.waiting import WAIT_S_MAX

TRUST_DOMAIN: Final = "countersign.test"
SYSTEMS: Final = ("lacris", "facefind")
ASK_EVERY_S: Final = 0.01

_ports = free_ports()


def free_port() -> int:
    """A port of the loopback interface on which nobody listens, and that no other test is given."""
    return next(_ports)


class Certificates:
    """An authority and what it issued, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = SystemClock()
        self._authority = Authority.create(TRUST_DOMAIN, self._clock.now())
        write_public(folder / "authority.pem", self._authority.certificate_pem)

    def tls(
        self,
        kind: Kind,
        name: str,
        *,
        listens: bool = False,
        authority: Authority | None = None,
        days_ago: int = 0,
    ) -> TlsFiles:
        """A new certificate for this identity, perhaps of another authority, or of a day long past."""
        now = self._clock.now() - timedelta(days=days_ago)
        identity = SpiffeId(TRUST_DOMAIN, kind, name)
        issued = (authority or self._authority).issue(identity, now, listens=listens)
        certificate = self._folder / f"{kind}-{name}.pem"
        key = self._folder / f"{kind}-{name}-key.pem"
        write_public(certificate, issued.certificate_pem)
        write_secret(key, issued.key_pem)
        ours = self._folder / "authority.pem"
        return TlsFiles(certificate=certificate, key=key, authority=ours)


class NatsUnderTest:
    """One server with its certificates and store."""

    def __init__(self, folder: Path, systems: Sequence[str] = SYSTEMS, without: str = "") -> None:
        self.certificates = Certificates(folder / "certificates")
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        server = NatsServer(
            trust_domain=TRUST_DOMAIN,
            host="127.0.0.1",
            port=self.port,
            tls=self.certificates.tls("service", "nats", listens=True),
            store=folder / "streams",
            systems=systems,
        )
        # As an older release wrote it: nobody may say that there.
        config = render(server).replace(f'"{without}",', "")
        (folder / "nats-server.conf").write_text(config)

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self._folder / "nats.log").read_text()

    def bus_settings(self, kind: Kind, name: str) -> BusSettings:
        """How a process with this identity connects."""
        return BusSettings(
            servers=(f"tls://127.0.0.1:{self.port}",), tls=self.certificates.tls(kind, name)
        )

    def start(self) -> None:
        """Starts it and waits until it answers."""
        program = Path(sys.executable).with_name("nats-server")
        with (self._folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", self._folder / "nats-server.conf"], stderr=log, stdout=log
            )
        tls = self.certificates.tls("operator", "test")
        context = ssl.create_default_context(cafile=str(tls.authority))
        context.load_cert_chain(tls.certificate, tls.key)
        deadline = time.monotonic() + WAIT_S_MAX
        while not self._answers(context):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"nats-server did not start:\n{self.log}")
            time.sleep(ASK_EVERY_S)

    def _answers(self, context: ssl.SSLContext) -> bool:
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection,
                context.wrap_socket(connection, server_hostname="127.0.0.1") as channel,
            ):
                return channel.recv(5) == b"INFO "
        except OSError:
            return False

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats_in(folder: Path, without: str = "") -> Iterator[NatsUnderTest]:
    """A running server for the systems lacris and facefind; nobody may publish to the subject `without`."""
    (folder / "nats").mkdir()
    server = NatsUnderTest(folder / "nats", without=without)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsUnderTest]:
    """One for the test."""
    with nats_in(tmp_path) as server:
        yield server
