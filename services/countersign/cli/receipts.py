"""Saves receipts as files that anybody can verify offline, without us.

For each receipt two files: the entry's exact bytes (`.leaf`) and the C2SP tlog-proof (`.tlog-proof`).
"""

import tempfile
from pathlib import Path

import click

from countersign.broker.v1.broker_pb2 import Search
from countersign.type.v1.decision_pb2 import Receipt


def folder_for_receipts(folder: Path, option: str) -> None:
    """Makes the folder and sees that it can be written, before anything is done that leaves a receipt.

    Raises click.UsageError that names the option.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise click.BadParameter(
            f"{folder} cannot be written: {error.strerror or error}. Nothing was done.",
            param_hint=option,
        ) from error


def save_receipts(folder: Path, search: Search) -> list[Path]:
    """Writes the receipts that the search has; gives the files with the proofs."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = [save_receipt(folder / f"{search.search_id}-decided", search.decision_receipt)]
    if search.HasField("end_receipt"):
        saved.append(save_receipt(folder / f"{search.search_id}-ended", search.end_receipt))
    if search.HasField("peer"):
        stem = f"{search.search_id}-peer"
        saved.append(save_receipt(folder / f"{stem}-decided", search.peer.decision_receipt))
        if search.peer.HasField("end_receipt"):
            saved.append(save_receipt(folder / f"{stem}-ended", search.peer.end_receipt))
    return saved


def save_receipt(stem: Path, receipt: Receipt) -> Path:
    """Writes one receipt; gives the file with the proof."""
    stem.with_name(f"{stem.name}.leaf").write_bytes(receipt.leaf)
    proof = stem.with_name(f"{stem.name}.tlog-proof")
    proof.write_text(receipt.tlog_proof, encoding="utf-8")
    return proof
