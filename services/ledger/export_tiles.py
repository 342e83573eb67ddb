"""`countersign-ledger export-tiles CONFIG FOLDER`: the log as files, once, with the service or without."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from ledger.config import LedgerSettings, WitnessingSettings
from ledger.cosigned import CosignedFile
from ledger.feeding import load_policy
from ledger.from_settings import database_of, load_keys
from ledger.reading import StorageFailed
from ledger.static_export import StaticExport
from ledger.tile_files import TileFiles
from ledger.tree import load_published
from shared.errors import NotReady, ServiceError
from shared.settings import SettingsError
from shared.signing import BadKey
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError


def run_export_tiles(arguments: list[str]) -> int:
    """Export a ledger; may run beside the service. Exit codes: 0 done, 1 not, 2 wrong configuration."""
    parser = argparse.ArgumentParser(
        prog="countersign-ledger export-tiles",
        description="Writes checkpoint, tiles and entry bundles as files, laid out as tlog-tiles serves "
        "them. A folder with an earlier export of the same log is brought up to date. With [witnessing], "
        "the checkpoint is the newest with a quorum.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument(
        "--recheck", action="store_true", help="compare every file that is there, and mend it"
    )
    given = parser.parse_args(arguments)
    try:
        settings = LedgerSettings.load(given.config)
        verifiers = load_keys(settings).verifiers
        # Before the entries: these may be of a larger tree, never of a smaller one.
        witnessed = _witnessed(settings.witnessing, verifiers)
        with contextlib.ExitStack() as stack:
            database = database_of(settings)
            reading = stack.enter_context(contextlib.closing(database.open_for_reading()))
            # Read and judged anew: this may run beside a service that goes on writing.
            stack.enter_context(reading.one_state())
            published = load_published(reading, verifiers)
            files = TileFiles(reading, lambda: published)
            export = StaticExport(given.folder, verifiers)
            exported = export.bring_up_to(witnessed or published.note, files, recheck=given.recheck)
    except (SettingsError, BadKey) as error:
        sys.stderr.write(f"countersign-ledger: {error}\n")
        return 2
    except (StorageFailed, OSError, TlogError) as error:
        sys.stderr.write(f"FAILED: {error}\n")
        return 1
    except ServiceError as error:
        sys.stderr.write(f"FAILED: {error.message}\n")
        return 1
    if exported is None:
        return 1
    sys.stdout.write(
        f"EXPORTED: {exported.checkpoint.size} entries, {exported.written} files written\n"
    )
    return 0


def _witnessed(settings: WitnessingSettings | None, verifiers: Sequence[LogVerifier]) -> str | None:
    """Give the newest checkpoint with a quorum, as the service shows it; None without witnesses."""
    if settings is None:
        return None
    policy = load_policy(settings, verifiers)
    cosigned = CosignedFile(settings.cosigned_checkpoint).load(policy)
    if cosigned is None or not cosigned.quorum:
        raise NotReady("NO_QUORUM", "no checkpoint has a quorum of witnesses yet")
    return cosigned.note
