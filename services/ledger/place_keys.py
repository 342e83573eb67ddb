"""`countersign-ledger place-opening-keys CONFIG FROM`: keys from a mounted secret to where only we read.

What orchestrators mount is open to a group; the ledger takes no key that others can reach. So a pod copies
its keys, before the ledger starts, to a folder in memory. From one replica to another they come through a
pipe: `... reveal-opening-keys CONFIG | ... place-opening-keys CONFIG -`.
"""

import argparse
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ledger.config import LedgerSettings
from ledger.key_provider import (
    mounted_keys,
    place_keys,
    read_revealed,
    revealed_keys,
    would_lose,
)
from ledger.openings import require_opening
from ledger.reading import StorageFailed
from shared.errors import NotReady, ServiceError
from shared.settings import SettingsError

PIPED: Final = "-"
PIPED_CHARACTERS_MAX: Final = 128 * 1024


def run_place_opening_keys(arguments: list[str]) -> int:
    """Place the keys. Exit codes: 0 placed, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger place-opening-keys",
        description="Copies the outermost keys of the openings (v1.key, v2.key, ...) from a folder to the "
        "one that the configuration names, for the ledger's own user alone.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument(
        "source",
        metavar="FROM",
        help="folder with the keys, or - for what reveal-opening-keys of another replica gives",
    )
    given = parser.parse_args(arguments)
    try:
        settings = LedgerSettings.load(given.config)
        if given.source == PIPED:
            keys = read_revealed(sys.stdin.read(PIPED_CHARACTERS_MAX))
        else:
            keys = mounted_keys(Path(given.source))
        _require_none_lost(keys, settings)
        place_keys(keys, settings.provider_keys)
    except SettingsError as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (ServiceError, StorageFailed, OSError) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(f"PLACED: {len(keys)} in {settings.provider_keys}\n")
    return 0


def _require_none_lost(keys: Mapping[int, bytes], settings: LedgerSettings) -> None:
    """Raise NotReady for keys copied the wrong way: what they would replace may be there only once."""
    if not would_lose(keys, settings.provider_keys):
        return
    try:
        require_opening(settings, keys)
    except NotReady as error:
        raise NotReady(
            error.reason,
            f"nothing was changed: {settings.provider_keys} holds keys that would be lost, and it is not "
            "sure that those given open the key store; copy from the replica that rotated last "
            f"({error.message})",
        ) from error


def run_reveal_opening_keys(arguments: list[str]) -> int:
    """Reveal the keys to a pipe. Exit codes: 0 done, 1 not, 2 wrong configuration, a terminal or a file."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger reveal-opening-keys",
        description="Writes the outermost keys of the openings, in the clear, for place-opening-keys of "
        "another replica to read: through a pipe, never to a terminal or a file.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    given = parser.parse_args(arguments)
    if sys.stdout.isatty() or stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
        parser.error("a terminal or a file keeps what it is given: pipe it into place-opening-keys")
    try:
        revealed = revealed_keys(LedgerSettings.load(given.config).provider_keys)
    except SettingsError as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except NotReady as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(revealed)
    return 0
