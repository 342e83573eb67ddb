"""`countersign-ledger begin CONFIG`: begins the log of an installation, once, where nobody can be asked."""

import argparse
import sys
from pathlib import Path

from ledger.config import LedgerSettings
from ledger.from_settings import database_of, load_keys, safeguards_of
from ledger.log import begin_log
from ledger.reading import StorageFailed
from shared.errors import NotReady
from shared.settings import SettingsError
from shared.signing import BadKey


def run_begin(arguments: list[str]) -> int:
    """Begin a log. Exit codes: 0 there is one now, 1 it was refused, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger begin",
        description="Begins a log without entries where there is none. A log that is there already is left "
        "alone. One that is gone is not begun a second time as long as it is remembered what was signed.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    given = parser.parse_args(arguments)
    try:
        settings = LedgerSettings.load(given.config)
        keys, database = load_keys(settings), database_of(settings)
        if database.has_log():
            sys.stdout.write(f"THERE: {database} has a log, which is left as it is\n")
            return 0
        begin_log(database, keys, safeguards_of(settings).open_last_signed)
    except (SettingsError, BadKey) as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (NotReady, StorageFailed, OSError) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    sys.stdout.write(f"BEGUN: an empty log in {database}\n")
    return 0
