"""`countersign ledger prove`: receipts of entries, with witnesses or without."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.ledger_files import with_any_key
from countersign.cli.ledger_keys import given, trusted
from countersign.cli.ledger_trust import WAIT_S_MAX
from countersign.cli.ledger_view import checkpoint_dict
from countersign.cli.output import OK, REFUSED, cells, err, json_option, print_json
from countersign.cli.receipts import folder_for_receipts, save_receipt
from countersign.client import ClientSettings, VerificationError
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1 import ledger_pb2 as pb
from countersign.mirror.concerns import read_entry
from countersign.type.v1.decision_pb2 import Receipt
from tlog.cosignature import LogVerifier
from tlog.errors import TlogError
from tlog.folder import utc
from tlog.policy import Judged, Policy
from tlog.proof import TlogProof, verify_receipt


@click.command()
@click.argument("index", type=click.IntRange(0))
@click.option(
    "--tree-size", type=click.IntRange(0), default=0, help="0 for the newest checkpoint's."
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write entry-INDEX.leaf and entry-INDEX.tlog-proof there, to be verified offline.",
)
@click.option(
    "--witnessed",
    is_flag=True,
    help="Against the newest checkpoint that witnesses have cosigned. Exit code 1 when they are not enough.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(0, WAIT_S_MAX),
    default=0,
    metavar="SECONDS",
    help="With --witnessed, how long to wait for witnesses at most.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="With --witnessed, your own tlog-policy file, by which to judge who has cosigned. Without it you "
    "are told what the ledger says.",
)
@config_option
@json_option
def prove(
    index: int,
    tree_size: int,
    save: Path | None,
    witnessed: bool,
    wait_s: int,
    policy_file: Path | None,
    config: Path,
    as_json: bool,
) -> int:
    """Prove that entry INDEX is in the ledger.

    For the newest size the proof is a C2SP tlog-proof, verified here and verifiable by anyone. For an
    older size it is the list of hashes, which only means something beside a checkpoint of that size.

    \b
    Examples:
      countersign ledger prove 7 > entry-7.tlog-proof
      countersign ledger prove 7 --save receipts
      countersign ledger prove 7 --witnessed --wait 5 --policy ledger.policy
      countersign ledger verify receipts/entry-7.tlog-proof
    """
    if not witnessed and (wait_s or policy_file is not None):
        raise click.UsageError("--wait and --policy go with --witnessed")
    if witnessed and tree_size:
        raise click.UsageError(
            "--witnessed is against the newest cosigned checkpoint: no --tree-size"
        )
    settings = load(config)
    if save is not None:
        folder_for_receipts(save, "--save")
    if witnessed:
        policy = given((), policy_file, config)
        document, receipt = _witnessed(settings, index, wait_s, policy, policy_file is not None)
    else:
        document, receipt = _proof(settings, index, tree_size)
    if save is not None:
        if not receipt.tlog_proof:
            raise click.UsageError("only a proof for the newest size can be saved")
        document["saved"] = str(save_receipt(save / f"entry-{index}", receipt))
    if as_json:
        print_json(document)
    else:
        _print_proof(document)
    return OK if document.get("quorum", True) else REFUSED


def _proof(settings: ClientSettings, index: int, tree_size: int) -> tuple[dict[str, Any], Receipt]:
    record, proof = run(entry_and_proof(settings, index, tree_size))
    document: dict[str, Any] = {
        "index": index,
        "tree_size": proof.tree_size,
        "hashes": [b64encode(one).decode() for one in proof.hashes],
    }
    if proof.tlog_proof:
        document |= {"tlog_proof": proof.tlog_proof, "leaf": b64encode(record.leaf).decode()}
        document["verified"] = verified(index, record, proof, trusted(settings))
    return document, Receipt(index=index, leaf=record.leaf, tlog_proof=proof.tlog_proof)


def _witnessed(
    settings: ClientSettings, index: int, wait_s: int, policy: Policy, own: bool
) -> tuple[dict[str, Any], Receipt]:
    response = run(_receipt(settings, index, wait_s))
    receipt = response.receipt
    proof, judged = _judged(receipt, index, policy)
    if own:
        times, lacking = dict(judged.cosigned), judged.shortfall
    else:
        times = {one.witness: one.cosigned_at.seconds for one in response.cosignatures}
        lacking = response.lacking or ("" if response.quorum else "it does not say what")
    document: dict[str, Any] = {
        "index": index,
        "tree_size": judged.checkpoint.size,
        "hashes": [b64encode(one).decode() for one in proof.hashes],
        "tlog_proof": receipt.tlog_proof,
        "leaf": b64encode(receipt.leaf).decode(),
        "verified": checkpoint_dict(judged.checkpoint),
        "judged_by": "policy" if own else "ledger",
        "cosigned": {name: utc(time_s) for name, time_s in times.items()},
        "quorum": not lacking,
        "lacking": lacking,
    }
    return document, receipt


def _judged(receipt: Receipt, index: int, policy: Policy) -> tuple[TlogProof, Judged]:
    try:
        proof = TlogProof.parse(receipt.tlog_proof)
        judged = proof.judge(receipt.leaf, policy)
    except TlogError as error:
        raise VerificationError("NOT_VERIFIED", str(error)) from error
    if proof.index != index:
        raise VerificationError("NOT_VERIFIED", f"the proof is of entry {proof.index}")
    return proof, judged


def _print_proof(document: dict[str, Any]) -> None:
    if "tlog_proof" in document:
        click.echo(document["tlog_proof"], nl=False)
    else:
        click.echo("".join(f"{one}\n" for one in document["hashes"]), nl=False)
    if not document["hashes"]:
        err().print("The tree has this entry only: its proof has no hashes.")
    if "verified" in document:
        # Not among the results: redirected to a file, they are exactly the proof.
        err().print(
            f"VERIFIED: entry {document['index']} is in the tree of size {document['tree_size']}"
        )
    if "quorum" in document:
        _print_witnesses(document)
    if "saved" in document:
        err().print(f"Written: {cells(document['saved'])[0]}")


def _print_witnesses(document: dict[str, Any]) -> None:
    own = document["judged_by"] == "policy"
    whose = "VERIFIED by your policy" if own else "The ledger says"
    for name, time in document["cosigned"].items():
        err().print(f"{whose}: {cells(name)[0]} cosigned it at {cells(time)[0]}")
    if document["quorum"]:
        err().print(f"{whose}: the quorum is there")
    else:
        lacking = cells(document["lacking"])[0]
        err().print(f"LACKS WITNESSES: {lacking}", soft_wrap=True)
    if not own:
        err().print("To have that verified, give your own --policy")


async def _receipt(settings: ClientSettings, index: int, wait_s: int) -> pb.GetReceiptResponse:
    async with LedgerClient.connect(settings) as client:
        return await client.receipt(index, wait_s)


async def entry_and_proof(
    settings: ClientSettings, index: int, tree_size: int
) -> tuple[pb.EntryRecord, pb.GetInclusionProofResponse]:
    """Ask for an entry and for its proof."""
    async with LedgerClient.connect(settings) as client:
        return await client.entry(index), await client.inclusion_proof(index, tree_size)


def verified(
    index: int,
    record: pb.EntryRecord,
    proof: pb.GetInclusionProofResponse,
    verifiers: Sequence[LogVerifier],
) -> dict[str, Any]:
    """What the checkpoint says under which entry `index` was proved; raises VerificationError.

    Then the record says what the bytes that were proved say, and nothing that the ledger said besides.
    """
    proved, opened = with_any_key(
        verifiers, lambda key: verify_receipt(record.leaf, proof.tlog_proof, key)
    )
    if proved != index:
        raise VerificationError("NOT_VERIFIED", f"the proof is of entry {proved}")
    record.index = index
    record.entry.CopyFrom(read_entry(record.leaf))
    return checkpoint_dict(opened)
