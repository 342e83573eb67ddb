"""The ports that an installation listens on."""

import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = "127.0.0.1"
"""The only address that an installation listens on: its authority is for development."""
PORT_BASE: Final = 7440
"""First of the fixed ports: in a row, below those that the kernel gives to outgoing connections."""
FREE_PORTS: Final = range(20_000, 32_000)
"""Where free ports are looked for: also below those, so that none is taken before it is used."""
BLOCK: Final = 40
"""Free ports are given out by the block: more than an installation has processes."""


class NoFreePort(Exception):
    """The loopback interface has no port left in the range."""


class PortTaken(Exception):
    """Somebody listens already on a port that one of our processes was to have."""


@dataclass(frozen=True)
class Ports:
    """One for each process."""

    broker: int
    ledger: int
    policy: int
    nats: int
    ledger_http: int
    """Where anybody reads the log."""
    connectors: Mapping[str, int]
    """By system."""
    authzen: int
    """Where the policy service speaks AuthZEN."""
    witness: int | None = None
    """None when no witness is to run here."""

    @classmethod
    def fixed(
        cls, systems: Sequence[str], base: int = PORT_BASE, *, witness: bool = False
    ) -> "Ports":
        """In a row: broker, ledger, policy, NATS, the log, the connectors, the witness, AuthZEN."""
        return cls._of(iter(range(base, base + 7 + len(systems))).__next__, systems, witness)

    @classmethod
    def free(cls, systems: Sequence[str], *, witness: bool = False) -> "Ports":
        """Ports on which nobody listens now (see `free_ports`). Raises NoFreePort."""
        return cls._of(free_ports().__next__, systems, witness)

    def must_be_free(self, *, bus: bool) -> None:
        """Raises PortTaken if one is not; that of the bus counts only if the bus is to run here."""
        wanted = [self.broker, self.ledger, self.ledger_http, self.policy, self.authzen]
        wanted += self.connectors.values()
        if self.witness is not None:
            wanted.append(self.witness)
        if bus:
            wanted.append(self.nats)
        taken = sorted(port for port in wanted if not is_free(port))
        if taken:
            which = f"port {taken[0]} is" if len(taken) == 1 else f"ports {_listed(taken)} are"
            raise PortTaken(f"{which} taken; use --port-base or --free-ports")

    @classmethod
    def _of(cls, take: Callable[[], int], systems: Sequence[str], witness: bool) -> "Ports":
        broker, ledger, policy, nats, ledger_http = (take() for _ in range(5))
        connectors = {system: take() for system in sorted(systems)}
        # The witness's place is kept for it, so that no port depends on whether there is one.
        place = take()
        return cls(
            broker=broker,
            ledger=ledger,
            policy=policy,
            nats=nats,
            ledger_http=ledger_http,
            connectors=connectors,
            authzen=take(),
            witness=place if witness else None,
        )


def _listed(ports: Sequence[int]) -> str:
    return ", ".join(str(port) for port in ports)


def free_ports() -> Iterator[int]:
    """Ports on which nobody listens now, and that only we are given until this process ends.

    Between finding a port and listening on it lie the seconds of a start, in which another installation,
    or another test, would find the same. Raises NoFreePort.
    """
    blocks = list(range(FREE_PORTS.start, FREE_PORTS.stop, BLOCK))
    random.shuffle(blocks)
    for block in blocks:
        if _claimed(block):
            yield from filter(is_free, range(block, block + BLOCK))
    raise NoFreePort(f"no free port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}")


def _claimed(block: int) -> bool:
    """True when no other process has claimed the block: its name is ours until this process ends."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        # An abstract name (unix(7)): no file, and the kernel forgets it with its socket.
        claim.bind(f"\0countersign/ports/{block}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True


def is_free(port: int) -> bool:
    """True when nobody listens on this port of the loopback interface."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def url(port: int) -> str:
    """Where the log is read over HTTP."""
    return f"http://{address(port)}"


def address(port: int) -> str:
    """`host:port`, as configuration files have it."""
    return f"{LOOPBACK}:{port}"
