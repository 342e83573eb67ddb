"""Verifies an exported table offline: every file, every row, and what can be told of completeness."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from countersign.client.periods import answers, closings_in, countable, verify_complete
from countersign.client.table_export import (
    MADE_LEAF,
    PERIODS,
    RECEIPTS,
    Proved,
    judged_checkpoint,
    proved_export_made,
    proved_rows,
    read_manifest,
)
from countersign.client.tables import first_difference
from countersign.client.verify import VerificationError
from countersign.ledger.v1.query_pb2 import EntryFilter
from countersign.mirror.concerns import read_entry
from tlog.policy import Judged, Policy
from tlog.verify import Progress

__all__ = ["VerifiedTable", "verify_table"]


@dataclass(frozen=True)
class VerifiedTable:
    """What was found."""

    judged: Judged
    rows: int
    tree_size: int
    export_index: int
    complete: str
    """What can be told of completeness, for a person."""


class _Reading:
    """Proved entries on their way through the comparison; keeps what is counted at the end."""

    def __init__(
        self,
        entries: Iterator[Proved],
        wanted: EntryFilter | None,
        rows: int,
        progress: Progress | None,
    ) -> None:
        self._entries = entries
        self._wanted = wanted
        self._rows = rows
        self._progress = progress
        self.indexes: list[int] = []

    def __iter__(self) -> Iterator[Proved]:
        for index, leaf in self._entries:
            if self._wanted is not None and not answers(self._wanted, index, leaf):
                raise VerificationError(
                    "NOT_VERIFIED", f"{RECEIPTS}: entry {index} is not one that the query asks for"
                )
            self.indexes.append(index)
            if self._progress is not None and len(self.indexes) % 1000 == 0:
                self._progress(len(self.indexes), self._rows)
            yield index, leaf


def verify_table(folder: Path, policy: Policy, progress: Progress | None = None) -> VerifiedTable:
    """Verify an export; raises VerificationError naming what failed.

    1. Every file is what the manifest says.
    2. The checkpoint is signed by a known log, and by a quorum of witnesses where the policy asks for one:
       it itself, or a later one that has all its entries.
    3. Each receipt proves its entry, each row of the table is what that entry says, no more and no less,
       and where that can be told from the entry alone, it is one that the query asks for.
    4. The ledger's own ExportMade entry names the same query, size and rows.
    5. Where periods can be counted, no entry is missing.
    """
    manifest = read_manifest(folder)
    checkpoint, judged = judged_checkpoint(folder, manifest, policy)
    form = str(manifest["format"])
    wanted = countable(manifest["query"])
    proved = proved_rows(folder, RECEIPTS, checkpoint)
    rows = _Reading(proved, wanted, manifest["rows"], progress)
    name = f"rows.{form}"
    difference = first_difference(form, folder / name, rows)
    if difference is not None:
        raise VerificationError("NOT_VERIFIED", f"{name}: {difference}")
    export_index, leaf = proved_export_made(folder, policy, checkpoint.origin)
    _verify_made(leaf, manifest, rows.indexes)
    closings = closings_in(proved_rows(folder, PERIODS, checkpoint))
    complete = "completeness cannot be told of such a query"
    if wanted is not None:
        complete = verify_complete(rows.indexes, wanted, manifest["tree_size"], closings).text
    return VerifiedTable(judged, len(rows.indexes), manifest["tree_size"], export_index, complete)


def _verify_made(leaf: bytes, manifest: dict[str, object], indexes: list[int]) -> None:
    made = read_entry(leaf).export_made
    try:
        query = json.loads(made.query)
    except ValueError:
        query = None
    if query != manifest["query"] or made.tree_size != manifest["tree_size"]:
        raise VerificationError(
            "NOT_VERIFIED", f"{MADE_LEAF}: the ledger recorded another query than the manifest has"
        )
    digest = sha256(b"".join(index.to_bytes(8, "big") for index in indexes)).digest()
    if (made.rows, made.rows, made.indexes_sha256) != (manifest["rows"], len(indexes), digest):
        raise VerificationError(
            "NOT_VERIFIED", f"{MADE_LEAF}: the ledger recorded other rows than there are"
        )
