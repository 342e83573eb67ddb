"""`python -m tlog`: verifies exports and receipts with this package and a crypto library alone.

For an auditor who would rather read a thousand lines than install what is to be audited. The command
`countersign ledger verify` says the same with this same code.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError
from tlog.folder import (
    LEAF_SUFFIX,
    export_text,
    failure_document,
    judged_document,
    load_policy,
    receipt_text,
    verify_folder,
    verify_receipt_file,
)
from tlog.policy import Policy
from tlog.tiles import TILE_WIDTH
from tlog.verify import NotVerified

VERIFIED = 0
NOT_VERIFIED = 1
USAGE = 2

PROGRESS_STEP = 100 * TILE_WIDTH
"""Entries between two reports: about seven a second."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify each path; exit 0 when all verify, 1 when one does not, 2 when it was not understood."""
    parser = argparse.ArgumentParser(prog="python -m tlog", description=main.__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--policy", type=Path, help="a tlog-policy file")
    parser.add_argument("--key", action="append", default=[], help="the log's verifier key")
    parser.add_argument("--since", type=Path, help="a checkpoint kept: an export must extend it")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    try:
        keys = [parse_log_vkey(key) for key in given.key]
        policy = Policy.of_logs(keys) if given.policy is None else load_policy(given.policy)
        if keys and given.policy is not None:
            policy = policy.with_logs(keys)
    except TlogError as error:
        parser.error(str(error))
    if not policy.logs:
        parser.error("give --key, or a --policy that names a log")
    if given.since is not None and not all(path.is_dir() for path in given.paths):
        parser.error("--since is for exports: a receipt is of one checkpoint")
    results = [_verify(path, policy, given.since) for path in given.paths]
    if given.json:
        sys.stdout.write(f"{json.dumps({'results': results}, indent=2, ensure_ascii=False)}\n")
    else:
        sys.stdout.writelines(f"{_line(result)}\n" for result in results)
    return VERIFIED if all(result["verified"] for result in results) else NOT_VERIFIED


def _progress(done: int, of: int) -> None:
    """Say how far it has come, when a person is looking."""
    if sys.stderr.isatty() and (done == of or done % PROGRESS_STEP == 0):
        sys.stderr.write(f"\r{done:,} of {of:,} entries{chr(10) if done == of else ''}")
        sys.stderr.flush()


def _line(result: dict[str, Any]) -> str:
    return f"{'VERIFIED' if result['verified'] else 'FAILED'} {result['path']}: {result['says']}"


def _verify(path: Path, policy: Policy, since: Path | None) -> dict[str, Any]:
    try:
        if path.is_dir():
            found = verify_folder(path, policy, _progress, since)
            judged = found.judged
            says = export_text(found)
        else:
            index, judged = verify_receipt_file(path, path.with_suffix(LEAF_SUFFIX), policy)
            says = receipt_text(index, judged)
    except NotVerified as error:
        document = {"path": str(path), "verified": False, "says": str(error)}
        return document | failure_document(error)
    return {"path": str(path), "verified": True, "says": says} | judged_document(judged)


if __name__ == "__main__":
    sys.exit(main())
