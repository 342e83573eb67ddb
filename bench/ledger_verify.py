"""Offline verification of an export, in entries per second, beside bare SHA-256 over the same bytes.

Makes a log of N entries as files, as a ledger exports them, with a log key, three witnesses and a policy of
two of them, and has `countersign ledger verify` verify it in a process of its own: the figures include
starting it. Beside the time that passed is the processor's, for machines that others use as well.
Run: `python bench/ledger_verify.py [--entries N] [--bytes B] [--rounds R]`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.merkle import leaf_hash
from tlog.note import Signer
from tlog.tiles import TILE_WIDTH, TileName, encode_bundle
from tlog.tree import GrowingTree

LOG = Signer.from_seed("ledger.example/bench", bytes(32))
KINDS = (CosignatureKind.ED25519, CosignatureKind.ED25519, CosignatureKind.ML_DSA_44)
WITNESSES = [
    Cosigner.from_seed(f"witness.example/{number}", bytes([number]) * 32, kind)
    for number, kind in enumerate(KINDS, start=1)
]
POLICY = "".join(
    [
        f"log {LOG.vkey}\n",
        *(f"witness w{n} {one.verifier.vkey}\n" for n, one in enumerate(WITNESSES)),
        "group two 2 w0 w1 w2\nquorum two\n",
    ]
)
TIME_S = 1_750_000_000


def write_export(folder: Path, count: int, entry_bytes: int) -> None:
    """Write a log of this many entries as files."""
    tree = GrowingTree()
    for start in range(0, count, TILE_WIDTH):
        # Each entry differs from every other, and costs nothing to make.
        entries = [
            number.to_bytes(8) * (entry_bytes // 8)
            for number in range(start, min(start + TILE_WIDTH, count))
        ]
        number, width = start // TILE_WIDTH, len(entries)
        row = b"".join(map(leaf_hash, entries))
        _write(folder, TileName(None, number, width), encode_bundle(entries))
        _write(folder, TileName(0, number, width), row)
        for level, above, hashes in tree.add_tile(row):
            _write(folder, TileName(level, above), hashes)
    for level, row in enumerate(tree.rows):
        if level and row:
            _write(folder, TileName(level, count >> 8 * (level + 1), len(row) // 32), row)
    checkpoint = Checkpoint(LOG.name, count, tree.root())
    lines = [one.cosign(checkpoint, TIME_S) for one in WITNESSES]
    (folder / "checkpoint").write_text(sign_checkpoint(checkpoint, LOG) + "".join(lines))
    (folder / "policy").write_text(POLICY)


def _write(folder: Path, name: TileName, content: bytes) -> None:
    path = folder / name.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass(frozen=True)
class Run:
    """What one run of the command took."""

    seconds: float
    cpu_s: float
    memory_mib: int


def verify(folder: Path) -> Run:
    """Run the command and time it."""
    command = [
        sys.executable, "-c", "from countersign.cli.main import main; main()",
        "ledger", "verify", str(folder), "--policy", str(folder / "policy"), "--json",
    ]  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    said = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not said["results"][0]["verified"]:
        raise SystemExit(f"the export does not verify: {said}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


def bare_hashes(folder: Path) -> float:
    """Seconds to read every bundle and hash it whole: what no verifier can do without."""
    started = time.perf_counter()
    for path in folder.glob("tile/entries/**/*"):
        if path.is_file():
            sha256(path.read_bytes()).digest()
    return time.perf_counter() - started


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=600, help="size of an entry")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    table = Table(
        "round", "seconds", "CPU s", "entries/s", "per CPU s", "memory MiB", "bare SHA-256 s"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_export(folder, given.entries, given.bytes)
        for number in range(1, given.rounds + 1):
            bare = bare_hashes(folder)
            run = verify(folder)
            table.add_row(
                str(number),
                f"{run.seconds:.1f}",
                f"{run.cpu_s:.1f}",
                f"{given.entries / run.seconds:,.0f}",
                f"{given.entries / run.cpu_s:,.0f}",
                str(run.memory_mib),
                f"{bare:.1f}",
            )
    console = Console()
    console.print(f"{given.entries:,} entries of {given.bytes} bytes, verified offline")
    console.print(table)


if __name__ == "__main__":
    main()
