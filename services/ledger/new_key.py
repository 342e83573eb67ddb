"""`countersign-ledger new-key CONFIG FILE`: makes an ML-DSA-44 key, to sign beside the log's Ed25519 key."""

import argparse
import sys
from pathlib import Path

from ledger.config import LedgerSettings
from ledger.keys import new_post_quantum_key
from shared.settings import SettingsError
from shared.signing import BadKey


def run_new_key(arguments: list[str]) -> int:
    """Make it, and print its verifier key. Exit codes: 0 made, 2 not."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger new-key",
        description="Makes an ML-DSA-44 key of the log in a new file, and prints its verifier key. Named in "
        "signing_keys behind an Ed25519 key, it signs every checkpoint too, with a line of its own.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument("file", type=Path, help="where the private key goes; replaces nothing")
    given = parser.parse_args(arguments)
    try:
        made = new_post_quantum_key(given.file, LedgerSettings.load(given.config).origin)
    except (SettingsError, BadKey) as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    sys.stdout.write(f"{made.vkey}\n")
    sys.stderr.write(f"countersign-ledger: wrote {given.file}; keep it secret\n")
    return 0
