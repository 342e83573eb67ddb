"""`countersign-ledger place-opening-keys CONFIG FROM`: keys from a mounted secret to where only we read.

What orchestrators mount is open to a group; the ledger takes no key that others can reach. So a pod copies
its keys, before the ledger starts, to a folder in memory.
"""

import argparse
import sys
from pathlib import Path

from ledger.config import LedgerSettings
from ledger.key_provider import place_keys
from shared.errors import NotReady
from shared.settings import SettingsError


def run_place_opening_keys(arguments: list[str]) -> int:
    """Place the keys. Exit codes: 0 placed, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger place-opening-keys",
        description="Copies the outermost keys of the openings (v1.key, v2.key, ...) from a folder to the "
        "one that the configuration names, for the ledger's own user alone.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument("source", type=Path, metavar="FROM", help="folder with the keys")
    given = parser.parse_args(arguments)
    try:
        settings = LedgerSettings.load(given.config)
        placed = place_keys(given.source, settings.provider_keys)
    except SettingsError as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (NotReady, OSError) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(f"PLACED: {placed} in {settings.provider_keys}\n")
    return 0
