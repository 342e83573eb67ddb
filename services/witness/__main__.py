"""Starts a witness, or prepares and examines one: `python -m witness [new-key|begin|evidence] ...`."""

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
from witness.config_checks import checks
from witness.cosigning import Witness
from witness.keys import load_cosigner, new_keys
from witness.server import WitnessServer, listening
from witness.store import Store

PROGRAM: Final = "countersign-witness"
DESCRIPTION: Final = (
    "Cosigns checkpoints of logs that only grow. To make its keys: "
    f"{PROGRAM} new-key NAME FOLDER. To make its store: {PROGRAM} begin CONFIG. "
    f"To see what it refused: {PROGRAM} evidence CONFIG."
)


@dataclass(frozen=True)
class RunningWitness:
    """A witness that listens."""

    port: int
    server: WitnessServer
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_ready(self) -> bool:
        """Whether it would cosign."""
        return self.server.is_well


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
                yield RunningWitness(port, server)


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


def run_begin(arguments: list[str]) -> int:
    """Make the store of a new witness. Exit codes: 0 there is one now, 2 not."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} begin",
        description="Makes the store of a new witness where there is none; one that is there is left alone. "
        "Only once for a key: a witness that forgets can be shown a second history.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    try:
        settings = WitnessSettings.load(parser.parse_args(arguments).config)
        there = settings.database.exists()
        Store.open(settings.database, create=True).close()
    except (SettingsError, NotReady) as error:
        return _complain(error)
    sys.stdout.write(f"{'THERE' if there else 'BEGUN'}: {settings.database}\n")
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
    if sys.argv[1:2] == ["begin"]:
        sys.exit(run_begin(sys.argv[2:]))
    if sys.argv[1:2] == ["evidence"]:
        sys.exit(run_evidence(sys.argv[2:]))
    run_process("witness", DESCRIPTION, WitnessSettings, running, checks)


if __name__ == "__main__":
    main()
