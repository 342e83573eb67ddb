"""Two installations that exchange searches, each with trust domain, ledger, policy, broker and NATS.

    async with federation(tmp_path) as (west, east):
        ...

An agency of `west` (LAPD) asks for a system that is at `east` (LACRIS, run by LASD). The services run within
the test, over real gRPC and two real NATS servers.
"""

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import broker.__main__ as broker_main
import connector.__main__ as connector_main
import ledger.__main__ as ledger_main
import policy.__main__ as policy_main
from broker.config import BrokerSettings
from connector.config import AnswersAtOnceAdapter, ConnectorSettings
from countersign.client import ClientSettings
from countersign.installation.ports import address, free_ports
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from shared.settings import TlsFiles
from support.installations import BURBANK, LAPD, LASD, InstallationUnderTest

WEST, EAST = "west.test", "east.test"
SYSTEM: Final = "lacris"
OPERATORS_DIRECTIVE: Final = "lasd-lacris-operator"
ASKING: Final = (LAPD, BURBANK)
"""Agencies of the west; all others are asked where the search is."""


@dataclass
class Side:
    """One installation, its services in this process."""

    installation: InstallationUnderTest
    domain: str
    port: int
    """Where it listens for the other side."""
    other: "Side | None" = None
    _services: dict[str, contextlib.AsyncExitStack] = field(default_factory=dict)

    @property
    def layout(self) -> Any:
        """Where its files are."""
        return self.installation.layout

    def client(self, ori: str) -> ClientSettings:
        """Of an agency's system."""
        return ClientSettings.load(self.installation.client(ori))

    @property
    def tls(self) -> TlsFiles:
        """Its broker's certificate, with the other side's trust bundle."""
        assert self.other is not None
        own = self.layout.tls(self.installation.prepared.identity("service", "broker"))
        return TlsFiles(
            certificate=own.certificate, key=own.key, authority=self.other.layout.authority
        )

    def roots(self) -> dict[str, Any]:
        """Its trust roots."""
        roots: dict[str, Any] = json.loads(self.layout.trust_roots.read_text())
        return roots

    def trusts(self, **changes: Any) -> None:
        """Writes its trust roots, with these changes."""
        self.layout.trust_roots.write_text(json.dumps({**self.roots(), **changes}))

    def broker_settings(self) -> BrokerSettings:
        """With the other side as its peer."""
        assert self.other is not None
        peer = {
            "tls": self.tls.model_dump(),
            "address": address(self.other.port),
            "listen": address(self.port),
        }
        settings = BrokerSettings.load(self.layout.config("broker"))
        peers = {} if not self.roots().get("peers") else {self.other.domain: peer}
        return BrokerSettings.model_validate({**settings.model_dump(), "peers": peers})

    async def start(self, name: str) -> None:
        """Starts one service."""
        config = self.layout.config
        running: Any
        if name == "ledger":
            running = ledger_main.running(LedgerSettings.load(config("ledger")))
        elif name == "policy":
            running = policy_main.running(PolicySettings.load(config("policy")))
        elif name == "broker":
            running = broker_main.running(self.broker_settings())
        else:
            behind = AnswersAtOnceAdapter(adapter="answers-at-once")
            settings = ConnectorSettings.load(config(f"connector-{SYSTEM}"))
            running = connector_main.running(settings.model_copy(update={"behind": behind}))
        stack = contextlib.AsyncExitStack()
        await stack.enter_async_context(running)
        self._services[name] = stack

    async def stop(self, name: str) -> None:
        """Stops one service."""
        await self._services.pop(name).aclose()

    async def close(self) -> None:
        """Stops all of it."""
        for name in reversed(list(self._services)):
            await self.stop(name)
        self.installation.kill()


def introduced(west: Side, east: Side) -> None:
    """Each trusts the other for its own: what an operator writes into the trust roots."""
    west.other, east.other = east, west
    # What the operator of the system has ordered is known where the operator is.
    shutil.rmtree(west.layout.directives / OPERATORS_DIRECTIVE)
    wests, easts = west.roots(), east.roots()
    west.trusts(
        # The system is not one of the west's, which has no connector for it.
        systems={name: keys for name, keys in wests["systems"].items() if name != SYSTEM},
        peers=[
            {
                "trust_domain": east.domain,
                "log_verifier_keys": easts["log_verifier_keys"],
                "systems": {SYSTEM: easts["systems"][SYSTEM]},
                "parties": [LASD],
            }
        ],
    )
    east.trusts(
        peers=[
            {
                "trust_domain": west.domain,
                "log_verifier_keys": wests["log_verifier_keys"],
                "parties": list(ASKING),
            }
        ]
    )


@contextlib.asynccontextmanager
async def federation(folder: Path) -> AsyncIterator[tuple[Side, Side]]:
    """Both sides, with everything running."""
    ports = free_ports()
    sides = [
        Side(InstallationUnderTest(folder / name, trust_domain=domain), domain, next(ports))
        for name, domain in (("west", WEST), ("east", EAST))
    ]
    west, east = sides
    introduced(west, east)
    try:
        for side in sides:
            side.installation.processes["nats"].start()
            for name in ("ledger", "policy", "broker"):
                await side.start(name)
        await east.start("connector")
        yield west, east
    finally:
        for side in sides:
            await side.close()
