"""`countersign registry publish`: what an owner registers, put on record."""

from pathlib import Path

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.escaping import escape
from countersign.cli.output import (
    OK,
    REFUSED,
    err,
    json_option,
    out,
    print_error,
    print_json,
    progress,
)
from countersign.client.documents import RegistrationClient
from countersign.client.verify import VerificationError, verify_receipt
from countersign.policy.v1 import policy_pb2 as pb
from registry import document, publication, signature
from registry.findings import RegistryRefused
from registry.signature import Signed
from shared.entry_json import message_dict
from shared.errors import InvalidRequest
from shared.registry import TrustRoots
from shared.settings import SettingsError
from tlog.errors import TlogError

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command()
@click.argument("folder", type=FOLDER)
@config_option
@click.option(
    "--signed-with",
    "signed_with",
    multiple=True,
    metavar="VKEY",
    help="Verifier key of the signature, when it is none of those that the document names.",
)
@json_option
def publish(folder: Path, config: Path, signed_with: tuple[str, ...], as_json: bool) -> int:
    """Put a signed registry document on record. It counts from the next search on.

    Only what has changed is published: to suspend one officer is one small entry. Who your officers are stays
    behind commitments; the secret never leaves your hands. The policy service refuses what is not signed with
    a key of the version before, and what would leave a directive or another owner without what they name.

    \b
    Example:
      countersign registry publish our-registry
    """
    settings = load(config)
    try:
        signed = _signed(folder.resolve(), signed_with)
    except RegistryRefused as refused:
        for finding in refused.findings:
            err().print(f"[bold red]refused[/] {escape(str(finding))}", soft_wrap=True)
        return REFUSED

    async def hand_in() -> pb.PublishRegistrationResponse:
        async with RegistrationClient.connect(settings.policy.address, settings.tls) as client:
            return await client.publish(signed)

    try:
        with progress("looked at by the policy service"):
            done = run(hand_in())
    except InvalidRequest as error:
        print_error(error)
        return REFUSED
    except RegistryRefused as refused:
        err().print(f"[bold red]refused[/] {escape(str(refused))}", soft_wrap=True)
        return REFUSED
    trust = TrustRoots.load(settings.trust_roots)
    for receipt in done.receipts:
        entry = verify_receipt(receipt, trust)
        event = getattr(entry, entry.WhichOneof("event") or "", None)
        if getattr(event, "statement", None) != done.statement:
            raise VerificationError("RECEIPT_OF_OTHER_TEXT", "a receipt is of another registration")
    indexes = [receipt.index for receipt in done.receipts]
    if as_json:
        print_json({"statement": message_dict(done.statement), "entries": indexes})
        return OK
    said = done.statement
    what = f"{escape(said.owner)}, serial number {said.serial}: {said.officers} officers"
    if indexes:
        listed = ", ".join(map(str, indexes))
        out().print(
            f"[bold green]Published[/]: {what}; ledger entries {listed} (receipts verified)"
        )
    else:
        out().print(f"{what}: on record already")
    return OK


def _signed(folder: Path, signed_with: tuple[str, ...]) -> Signed:
    try:
        given = signature.parse_keys(signed_with)
    except TlogError as error:
        raise SettingsError(f"--signed-with: {error}") from error
    named = signature.parse_keys(document.read(folder).public.keys.registry)
    return publication.load(folder, [*named, *given])
