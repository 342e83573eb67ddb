"""The log, judged by software that we did not write: OpenSSL and pymerkle, on exported files alone.

What is ours here is splitting a text at its lines and a file at its length prefixes, as C2SP says.
"""

import base64
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pymerkle import InmemoryTree

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse, PendingEntry
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from support.exporting import export
from support.ledgers import SIGNER, decided, write_settings
from support.nats_servers import NatsUnderTest

ED25519_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""RFC 8410: what stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo."""


@dataclass(frozen=True)
class Export:
    """Files as a stranger got them."""

    folder: Path

    @property
    def note(self) -> str:
        return (self.folder / "checkpoint").read_text(encoding="utf-8")

    @property
    def signed_text(self) -> bytes:
        return (self.note.rpartition("\n\n")[0] + "\n").encode()

    @property
    def size(self) -> int:
        return int(self.note.splitlines()[1])

    @property
    def root(self) -> bytes:
        return base64.b64decode(self.note.splitlines()[2])

    @property
    def signature(self) -> bytes:
        return base64.b64decode(self.note.rpartition("\n\n")[2].split()[2])[4:]

    def entries(self) -> Iterator[bytes]:
        bundles = sorted((self.folder / "tile" / "entries").rglob("*"))
        for bundle in (path for path in bundles if path.is_file()):
            data = bundle.read_bytes()
            while data:
                length = int.from_bytes(data[:2], "big")
                yield data[2 : 2 + length]
                data = data[2 + length :]


def openssl_says(export: Export, folder: Path) -> bool:
    """Whether OpenSSL verifies the log's signature on the checkpoint."""
    files = {
        "key.der": ED25519_SPKI_PREFIX + SIGNER.verifier.public_key,
        "text": export.signed_text,
        "signature": export.signature,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = "openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey key.der -in text -sigfile signature"
    return subprocess.run(command.split(), cwd=folder, capture_output=True).returncode == 0


def tree_of(export: Export) -> InmemoryTree:
    """The entries in a tree of pymerkle's."""
    tree = InmemoryTree(algorithm="sha256")
    for entry in export.entries():
        tree.append_entry(entry)
    return tree


@pytest.fixture(name="exports")
async def _exports(tmp_path: Path, nats_server: NatsUnderTest) -> list[Export]:
    """Two exports of one running ledger, the second when it had grown past a tile."""
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server))
    exports = []
    async with running(settings) as ledger:
        bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")

        async def append(*pending: PendingEntry) -> None:
            request = AppendRequest(entries=pending)
            await bus.request("ledger.append", request, AppendResponse, timeout_s=20)

        for count, start in ((100, 0), (200, 100)):
            await append(*(decided(start + number) for number in range(count)))
            folder = tmp_path / f"export-{start}"
            await export(folder, nats_server, ledger.server.port)
            exports.append(Export(folder))
        await bus.close()
    return exports


@pytest.mark.promise(4)
async def test_others_come_to_the_same_root_and_signature(
    exports: list[Export], tmp_path: Path
) -> None:
    for one in exports:
        tree = tree_of(one)
        assert tree.get_size() == one.size
        assert tree.get_root() == one.root
        assert openssl_says(one, tmp_path)


@pytest.mark.promise(4)
async def test_others_see_that_the_later_log_only_grew(exports: list[Export]) -> None:
    earlier, later = exports
    assert (earlier.size, later.size) == (100, 300)
    assert tree_of(later).get_root(earlier.size) == earlier.root


@pytest.mark.promise(4)
async def test_others_see_a_changed_byte(exports: list[Export], tmp_path: Path) -> None:
    one = exports[0]
    bundle = one.folder / "tile" / "entries" / "000.p" / "100"
    data = bytearray(bundle.read_bytes())
    data[40] ^= 1
    bundle.write_bytes(data)
    assert tree_of(one).get_root() != one.root
    checkpoint = one.folder / "checkpoint"
    checkpoint.write_text(one.note.replace("\n100\n", "\n101\n"), encoding="utf-8")
    assert not openssl_says(one, tmp_path)
