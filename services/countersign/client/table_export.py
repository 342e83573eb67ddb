"""Exports of tables: a folder with the table, a proof of every row, and a manifest; and their verification.

| file | holds |
|---|---|
| `rows.jsonl`, `rows.csv` or `rows.parquet` | the table |
| `receipts.jsonl` | for each row the entry's bytes and its inclusion proof |
| `periods.jsonl` | the same for the PeriodClosed entries that the rows can be counted against |
| `export-made.leaf`, `export-made.tlog-proof` | the entry that put the export on record |
| `checkpoint` | the signed tree that all proofs lead to |
| `manifest.json` | the query, the size of the tree, the number of rows, and the SHA-256 of every other file |

If it was made with witnesses, the manifest has a later checkpoint that they cosigned (`cosigned`), with
the proof that it has all entries of `checkpoint`, and the receipt in `export-made.tlog-proof` leads there.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import ParseDict, ParseError

from countersign.client.tables import FORMATS, open_table
from countersign.client.verify import VerificationError
from countersign.ledger.v1 import query_pb2 as pb
from tlog.checkpoint import Checkpoint
from tlog.errors import TlogError
from tlog.folder import verify_receipt_file
from tlog.merkle import leaf_hash, verify_consistency, verify_inclusion
from tlog.note import NOTE_BYTES_MAX
from tlog.policy import Judged, Policy
from tlog.tiles import CHECKPOINT_FILE
from tlog.verify import NotVerified

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
RECEIPTS: Final = "receipts.jsonl"
PERIODS: Final = "periods.jsonl"
MADE_LEAF: Final = "export-made.leaf"
MADE_PROOF: Final = "export-made.tlog-proof"
MANIFEST_BYTES_MAX: Final = 1024 * 1024
"""A query and seven digests, with much room."""
LINE_BYTES_MAX: Final = 200_000
"""An entry of 65,535 bytes in base64 with 63 hashes, and room."""

Proved = tuple[int, bytes]
"""Index and bytes of an entry that was proved."""


@dataclass(frozen=True)
class Cosigned:
    """The witnesses' word for the tree of an export."""

    checkpoint: str
    """A signed note of a tree that is at least as large, with their lines."""
    consistency: Sequence[bytes]
    """That it begins with the entries of the export's own tree."""
    made_proof: str
    """Receipt of the entry that put the export on record, in the larger tree."""


class TableExport:
    """Writes an export as it comes: the rows, and then the manifest."""

    def __init__(self, folder: Path, form: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._form = form
        self.rows = 0

    async def write(self, parts: AsyncIterator[pb.ExportEntriesResponse]) -> pb.ExportBeginning:
        """Write what is shown; gives what the ledger said of it first. Raises VerificationError."""
        table = open_table(self._form, self._folder / f"rows.{self._form}")
        beginning = None
        with (
            (self._folder / RECEIPTS).open("w", encoding="utf-8") as receipts,
            (self._folder / PERIODS).open("w", encoding="utf-8") as periods,
        ):
            async for part in parts:
                if part.HasField("beginning"):
                    beginning = part.beginning
                for row in part.rows.rows:
                    table.add(row.index, row.leaf)
                    receipts.write(_line(row))
                    self.rows += 1
                for row in part.periods.rows:
                    periods.write(_line(row))
        table.close()
        if beginning is None:
            raise VerificationError("EXPORT_EMPTY", "the ledger sent an export without a beginning")
        return beginning

    def finish(
        self, beginning: pb.ExportBeginning, cosigned: Cosigned | None = None
    ) -> dict[str, Any]:
        """Write all that belongs to the rows, the manifest last; gives the manifest."""
        made = beginning.export_made
        proof = made.tlog_proof if cosigned is None else cosigned.made_proof
        (self._folder / MADE_LEAF).write_bytes(made.record.leaf)
        (self._folder / MADE_PROOF).write_text(proof, encoding="utf-8")
        (self._folder / CHECKPOINT_FILE).write_text(beginning.checkpoint, encoding="utf-8")
        names = [CHECKPOINT_FILE, MADE_LEAF, MADE_PROOF, PERIODS, RECEIPTS, f"rows.{self._form}"]
        manifest = {
            "version": VERSION,
            "query": json.loads(made.record.entry.export_made.query),
            "format": self._form,
            "tree_size": beginning.basis.tree_size,
            "rows": self.rows,
            "checkpoint": beginning.checkpoint,
            "files": {name: _sha256(self._folder / name) for name in names},
        }
        if cosigned is not None:
            hashes = [b64encode(one).decode() for one in cosigned.consistency]
            manifest["cosigned"] = {"checkpoint": cosigned.checkpoint, "consistency": hashes}
        text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (self._folder / MANIFEST).write_text(text, encoding="utf-8")
        return manifest


def require_asked(manifest: Mapping[str, Any], asked: pb.EntryFilter) -> None:
    """Raise VerificationError unless the ledger exported by the query that it was asked.

    By a narrower one it could leave out what it likes, and the table would verify as all of that.
    """
    public = pb.EntryFilter()
    public.CopyFrom(asked)
    for private in ("value", "reason", "request_id", "officer_token"):
        public.opening.ClearField(private)
    if not asked.HasField("opening"):
        public.ClearField("opening")
    try:
        recorded = ParseDict(manifest["query"], pb.EntryFilter())
    except ParseError as error:
        raise _failed(MANIFEST, "its query cannot be read") from error
    if recorded != public:
        raise _failed(MANIFEST, "the ledger exported by another query than it was asked")


def _line(row: pb.ExportRow) -> str:
    document = {
        "index": row.index,
        "leaf": b64encode(row.leaf).decode(),
        "hashes": [b64encode(one).decode() for one in row.hashes],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest and check that every file is as it says; raises VerificationError."""
    try:
        manifest = json.loads(_bounded(folder / MANIFEST, MANIFEST_BYTES_MAX))
        files = dict(manifest["files"])
        form = manifest["format"]
        needed = {CHECKPOINT_FILE, MADE_LEAF, MADE_PROOF, PERIODS, RECEIPTS, f"rows.{form}"}
        whole = manifest["version"] == VERSION and form in FORMATS and set(files) == needed
        int(manifest["rows"]), int(manifest["tree_size"]), dict(manifest["query"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise _failed(
            MANIFEST, "it is missing, cannot be read, or does not list what an export has"
        )
    for name, digest in sorted(files.items()):
        if not (folder / name).is_file():
            raise _failed(name, "it is missing")
        if _sha256(folder / name) != digest:
            raise _failed(name, "it is not what the manifest says (SHA-256)")
    document: dict[str, Any] = manifest
    return document


def _bounded(path: Path, bytes_max: int) -> bytes:
    """A file of a stranger's, if it is no larger than such files are; raises OSError and ValueError."""
    if path.exists() and not path.is_file():
        # A pipe would be waited for without end.
        raise ValueError("it is no file")
    with path.open("rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise ValueError(f"it has more than {bytes_max} bytes")
    return content


def judged_checkpoint(
    folder: Path, manifest: Mapping[str, Any], policy: Policy
) -> tuple[Checkpoint, Judged]:
    """The signed tree that all proofs must lead to, and the one that was judged by the policy: itself, or
    a later one that has all its entries. Raises VerificationError."""
    try:
        judged = policy.judge(_bounded(folder / CHECKPOINT_FILE, NOTE_BYTES_MAX))
    except (TlogError, ValueError) as error:
        raise _failed(CHECKPOINT_FILE, str(error)) from error
    checkpoint = judged.checkpoint
    if "cosigned" in manifest:
        judged = _later(checkpoint, manifest["cosigned"], policy)
    if not judged.quorum:
        what = f"the quorum of witnesses is missing: {judged.shortfall}"
        raise _failed(MANIFEST if "cosigned" in manifest else CHECKPOINT_FILE, what)
    return checkpoint, judged


def _later(first: Checkpoint, cosigned: Any, policy: Policy) -> Judged:
    """The cosigned tree, if it begins with the entries of the first; raises VerificationError."""
    try:
        judged = policy.judge(str(cosigned["checkpoint"]), first.origin)
        hashes = [b64decode(one, validate=True) for one in cosigned["consistency"]]
        second = judged.checkpoint
        verify_consistency(first.size, second.size, first.root, second.root, hashes)
    except (KeyError, TypeError, ValueError) as error:
        raise _failed(MANIFEST, "its cosigned checkpoint cannot be read") from error
    except TlogError as error:
        raise _failed(MANIFEST, f"its cosigned checkpoint: {error}") from error
    return judged


def proved_export_made(folder: Path, policy: Policy, origin: str) -> tuple[int, bytes]:
    """Index and bytes of the entry by which this log recorded the export; raises VerificationError."""
    try:
        index, _ = verify_receipt_file(folder / MADE_PROOF, folder / MADE_LEAF, policy, origin)
    except NotVerified as error:
        raise _failed(MADE_PROOF, str(error)) from error
    return index, (folder / MADE_LEAF).read_bytes()


def proved_rows(folder: Path, name: str, checkpoint: Checkpoint) -> Iterator[Proved]:
    """Entries in order, each proved to be in the tree; raises VerificationError at the first that is not."""
    last = -1
    with (folder / name).open("rb") as file:
        number = 0
        while line := file.readline(LINE_BYTES_MAX):
            number += 1
            try:
                row = json.loads(line)
                index, leaf = int(row["index"]), b64decode(row["leaf"], validate=True)
                hashes = [b64decode(one, validate=True) for one in row["hashes"]]
                verify_inclusion(leaf_hash(leaf), index, checkpoint.size, hashes, checkpoint.root)
            except (ValueError, KeyError, TypeError) as error:
                raise _failed(name, f"line {number} is no receipt") from error
            except TlogError as error:
                raise _failed(name, f"line {number}: {error}") from error
            if index <= last:
                raise _failed(name, f"line {number}: entry {index} is out of order")
            last = index
            yield index, leaf


def _failed(file: str, what: str) -> VerificationError:
    return VerificationError("NOT_VERIFIED", f"{file}: {what}")
