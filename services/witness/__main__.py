"""Starts a witness, makes its keys, or shows its evidence: `python -m witness [new-key|evidence] ...`."""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shared.clock import SystemClock
from shared.errors import NotReady
from shared.process import run_process
from shared.settings import SettingsError
from shared.signing import BadKey
from witness.config import WitnessSettings
from witness.cosigning import Witness
from witness.keys import load_cosigner, new_keys
from witness.server import WitnessServer, listening
from witness.store import Store

PROGRAM: Final = "countersign-witness"
DESCRIPTION: Final = (
    "Cosigns checkpoints of logs that only grow. To make its keys: "
    f"{PROGRAM} new-key NAME FOLDER. To see what it refused: {PROGRAM} evidence CONFIG."
)


@dataclass(frozen=True)
class RunningWitness:
    """A witness that listens."""

    port: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


def open_store(settings: WitnessSettings) -> Store:
    """The store of a configuration."""
    return Store.open(settings.database, create=settings.create_if_missing)


@contextlib.asynccontextmanager
async def running(
    settings: WitnessSettings, opened: Callable[[WitnessSettings], Store] = open_store
) -> AsyncIterator[RunningWitness]:
    """A witness, from its settings."""
    cosigners = [load_cosigner(path) for path in settings.keys]
    logs = {log.origin: log.verifiers for log in settings.logs.values()}
    with contextlib.closing(opened(settings)) as store:
        server = WitnessServer(Witness(logs, cosigners, store, SystemClock()))
        with contextlib.closing(server):
            async with listening(
                server.application(settings.listen.prefix), settings.listen
            ) as port:
                yield RunningWitness(port)


def run_new_key(arguments: list[str]) -> int:
    """Make the keys of a witness. Exit codes: 0 made, 2 not."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} new-key",
        description="Makes an Ed25519 and an ML-DSA-44 key in FOLDER and prints their verifier keys.",
    )
    parser.add_argument("name", help="name of the witness, such as witness.example/tribune")
    parser.add_argument("folder", type=Path, help="folder for the key files; made when missing")
    given = parser.parse_args(arguments)
    try:
        made = new_keys(given.name, given.folder)
    except BadKey as error:
        return _complain(error)
    for key in made:
        sys.stdout.write(f"{key.verifier.vkey}\n")
        sys.stderr.write(f"{PROGRAM}: wrote {key.file}; keep it secret\n")
    return 0


def run_evidence(arguments: list[str]) -> int:
    """Show what was signed and refused. Exit codes: 0 nothing conclusive, 1 two histories, 2 unreadable."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} evidence",
        description="Prints each refused checkpoint that its log had signed, one JSON document a line. "
        "May run beside the witness. Exit code 1 when one of them proves two histories.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    proved = False
    try:
        settings = WitnessSettings.load(parser.parse_args(arguments).config)
        with contextlib.closing(Store.open(settings.database, create=False)) as store:
            for found in store.evidence():
                proved = proved or found.conclusive
                document = {
                    "log": found.origin,
                    "refused_at": datetime.fromtimestamp(found.time_s, UTC).isoformat(),
                    "two_histories": found.conclusive,
                    "refused": found.note,
                    "held": found.held,
                }
                sys.stdout.write(f"{json.dumps(document, ensure_ascii=False)}\n")
    except (SettingsError, NotReady) as error:
        return _complain(error)
    return 1 if proved else 0


def _complain(error: Exception) -> int:
    sys.stderr.write(f"{PROGRAM}: {error}\n")
    return 2


def main() -> None:
    """Entry point of `countersign-witness`."""
    if sys.argv[1:2] == ["new-key"]:
        sys.exit(run_new_key(sys.argv[2:]))
    if sys.argv[1:2] == ["evidence"]:
        sys.exit(run_evidence(sys.argv[2:]))
    run_process("witness", DESCRIPTION, WitnessSettings, running)


if __name__ == "__main__":
    main()
