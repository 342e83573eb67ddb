"""Witnesses for tests: logs that grow or fork, requests, and the real program to be killed."""

import contextlib
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import aiohttp

from shared.clock import Clock
from support.clocks import ClockThatStandsStill
from support.nats_servers import free_port
from support.programs import ProgramUnderTest
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.merkle import TreeAtSize, leaf_hash, node_hash
from tlog.note import Signer
from tlog.witness_protocol import AddCheckpoint
from witness.config import HttpSettings
from witness.cosigning import Answer, Witness
from witness.keys import new_keys
from witness.server import WitnessServer, listening
from witness.store import Store

ORIGIN = "ledger.example/exchange"
LOG_SIGNER = Signer.from_seed(ORIGIN, bytes(range(0x20)))
WITNESS_SEED = bytes(range(0x20, 0x40))
PQ_SEED = bytes(range(0x40, 0x60))
COSIGNER = Cosigner.from_seed("witness.example/w1", WITNESS_SEED, CosignatureKind.ED25519)
PQ_COSIGNER = Cosigner.from_seed("witness.example/w1-pq", PQ_SEED, CosignatureKind.ML_DSA_44)


class GrowingLog:
    """A log of "entry 0", "entry 1", …; another label from an entry on makes a fork."""

    def __init__(self, signer: Signer = LOG_SIGNER, fork_at: int | None = None) -> None:
        self.signer = signer
        self._fork_at = fork_at

    def _leaf(self, index: int) -> bytes:
        other = self._fork_at is not None and index >= self._fork_at
        return leaf_hash(f"{'other ' if other else ''}entry {index}".encode())

    def _subtree(self, level: int, index: int) -> bytes:
        if level == 0:
            return self._leaf(index)
        below = index * 2
        return node_hash(self._subtree(level - 1, below), self._subtree(level - 1, below + 1))

    def tree(self, size: int) -> TreeAtSize:
        """The tree at a size."""
        return TreeAtSize(size, self._subtree)

    def checkpoint(self, size: int) -> Checkpoint:
        """What it signs at a size."""
        return Checkpoint(self.signer.name, size, self.tree(size).root)

    def note(self, size: int) -> str:
        """The signed checkpoint."""
        return sign_checkpoint(self.checkpoint(size), self.signer)

    def request(self, old: int, size: int) -> bytes:
        """An honest add-checkpoint body."""
        proof = self.tree(size).consistency_proof(old) if 0 < old < size else []
        return AddCheckpoint(old, tuple(proof), self.note(size)).encoded


def a_witness(
    store: Store,
    *cosigners: Cosigner,
    clock: Clock | None = None,
) -> Witness:
    """A witness of the log of the vectors."""
    logs = {ORIGIN: (LOG_SIGNER.verifier,)}
    return Witness(logs, cosigners or (COSIGNER,), store, clock or ClockThatStandsStill())


class WitnessesOfOneStore:
    """Asks a witness directly."""

    def __init__(self, folder: Path, *cosigners: Cosigner) -> None:
        self.clock = ClockThatStandsStill()
        self.path = folder / "witness.sqlite3"
        self.store = Store.open(self.path, create=True)
        self._cosigners = cosigners
        self.witness = a_witness(self.store, *cosigners, clock=self.clock)

    def ask(self, body: bytes) -> Answer:
        """One request."""
        return self.witness.add_checkpoint(body)

    def restart(self) -> None:
        """Opens the file anew."""
        self.store.close()
        self.store = Store.open(self.path, create=False)
        self.witness = a_witness(self.store, *self._cosigners, clock=self.clock)


@contextlib.asynccontextmanager
async def serving(witness: Witness, folder: Path, prefix: str = "") -> AsyncIterator[str]:
    """The witness over HTTP in this process; gives the URL of its prefix."""
    server = WitnessServer(witness)
    settings = HttpSettings(address="127.0.0.1:0", prefix=prefix, port_file=folder / "port")
    with contextlib.closing(server):
        async with listening(server.application(prefix), settings) as port:
            yield f"http://127.0.0.1:{port}{prefix}"


def write_witness(folder: Path, log_vkey: str, name: str = "witness.example/w1") -> Path:
    """Makes keys and a configuration for the real program, on a port that stays its own."""
    new_keys(name, folder)
    config = folder / "witness.toml"
    config.write_text(
        'database = "witness.sqlite3"\ncreate_if_missing = true\n'
        'keys = ["witness-ed25519.key", "witness-ml-dsa-44.key"]\n'
        f'[listen]\naddress = "127.0.0.1:{free_port()}"\nport_file = "port"\n'
        f"[logs.ledger]\nkeys = [{json.dumps(log_vkey)}]\n"
    )
    return config


class WitnessProcess(ProgramUnderTest):
    """The real program."""

    def __init__(self, config: Path, program: str | tuple[Path, str] = "witness") -> None:
        super().__init__(config, program)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def vkey(self) -> str:
        """Its Ed25519 verifier key."""
        return self.config.with_name("witness-ed25519.vkey").read_text().strip()


async def post(url: str, body: bytes) -> tuple[int, str, str]:
    """Sends an add-checkpoint; gives status, type and body."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/add-checkpoint", data=body) as response,
    ):
        return response.status, response.headers["Content-Type"], await response.text()


def origin_hash(origin: str) -> str:
    """The log's part of the monitoring path."""
    return sha256(origin.encode()).hexdigest()
