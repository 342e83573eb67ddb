"""`countersign-ledger rotate-opening-keys CONFIG`: new keys around the openings, which themselves stay."""

import argparse
import sys
from pathlib import Path

from ledger.config import LedgerSettings
from ledger.openings import opened_keyring
from shared.errors import ServiceError
from shared.settings import SettingsError


def run_rotate_opening_keys(arguments: list[str]) -> int:
    """Rotate; may run beside the service. Exit codes: 0 done, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger rotate-opening-keys",
        description="Makes a new outermost key and a new key for each holder of openings, and wraps the keys "
        "of the openings anew. Entries and openings are not touched.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument(
        "--destroy-old",
        action="store_true",
        help="Destroy the older outermost keys: old copies of the key store open nothing any more.",
    )
    chosen = parser.parse_args(arguments)
    try:
        settings = LedgerSettings.load(chosen.config)
        version, destroyed = _rotate(settings, destroy_old=chosen.destroy_old)
    except SettingsError as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except ServiceError as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(f"ROTATED: version {version} wraps from now on; {destroyed} destroyed\n")
    return 0


def _rotate(settings: LedgerSettings, *, destroy_old: bool) -> tuple[int, int]:
    with opened_keyring(settings) as keyring:
        version = keyring.rotate()
        return version, keyring.destroy_older(version) if destroy_old else 0
