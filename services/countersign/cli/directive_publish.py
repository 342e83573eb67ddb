"""`countersign directive publish` and `withdraw`: what a party puts in force, and ends."""

from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.directive_local import FOLDER
from countersign.cli.directive_view import effect
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
from countersign.cli.receipts import folder_for_receipts, save_receipt
from countersign.client.config import ClientSettings
from countersign.client.documents import DirectiveClient, handed_in
from countersign.client.verify import VerificationError, verify_receipt
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import Receipt
from directive import document, signature
from directive.findings import DirectiveRefused
from shared.clock import SystemClock
from shared.entry_json import message_dict
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.registry import TrustRoots
from shared.settings import SettingsError
from shared.signing import SigningKey
from tlog.errors import TlogError
from tlog.note import sign_note

Answer = TypeVar("Answer")


def receipts_option(command: Any) -> Any:
    """Adds where the receipt is saved."""
    return click.option(
        "--receipts",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Save the receipt here: the entry and its proof, for anybody to verify offline.",
    )(command)


@click.command()
@click.argument("folders", metavar="FOLDER...", type=FOLDER, nargs=-1, required=True)
@config_option
@click.option(
    "--received-late",
    is_flag=True,
    help="Publish though its effect begins on a day that is past: searches of before stay as decided.",
)
@receipts_option
@json_option
def publish(
    folders: tuple[Path, ...],
    config: Path,
    received_late: bool,
    receipts: Path | None,
    as_json: bool,
) -> int:
    """Put signed directives on record, where everybody can read them and nobody can change them.

    The policy service puts it through every guard, case and gate once more, and asks for the signature of its
    party (see `directive sign`). It takes effect on its day. What was published stays: a new text has a
    new name, and says with `replaces` in its manifest which directive ends when it begins.

    Several are published in the order given, up to the first that is refused; what is on record already stays
    as it is, so that the same command may be run again.

    \b
    Example:
      countersign directive publish our-department-2026
    """
    settings = load(config)
    if receipts is not None:
        folder_for_receipts(receipts, "--receipts")
    for folder in folders:
        code = _publish(folder, settings, received_late, receipts, as_json)
        if code != OK:
            return code
    return OK


def _publish(
    folder: Path,
    settings: ClientSettings,
    received_late: bool,
    receipts: Path | None,
    as_json: bool,
) -> int:
    try:
        request = handed_in(folder.resolve(), received_late=received_late)
    except DirectiveRefused as refused:
        for finding in refused.findings:
            err().print(f"[bold red]refused[/] {escape(str(finding))}", soft_wrap=True)
        return REFUSED

    async def hand_in() -> pb.PublishDirectiveResponse:
        async with DirectiveClient.connect(settings.policy.address, settings.tls) as client:
            return await client.publish(request)

    with progress("looked at by the policy service"):
        done = _unless_refused(hand_in())
    if done is None:
        return REFUSED
    if done.HasField("receipt"):
        entry = verify_receipt(done.receipt, TrustRoots.load(settings.trust_roots))
        event = entry.directive_published
        sent = (request.manifest, request.rules, request.cases)
        if (event.manifest_text, event.rules_text, event.cases_text) != sent:
            raise VerificationError("RECEIPT_OF_OTHER_TEXT", "the receipt is of another text")
    receipt = done.receipt if done.HasField("receipt") else None
    return _print_done("Published", done.directive, receipt, receipts, as_json)


@click.command()
@click.argument("name")
@config_option
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Ed25519 private key (PEM) of the party.",
)
@click.option("--key-name", required=True, help="The key's name, as the party registered it.")
@click.option(
    "--until",
    "until",
    type=click.DateTime(["%Y-%m-%d"]),
    default=None,
    help="First day without effect (UTC) [default: today].",
)
@receipts_option
@json_option
def withdraw(
    name: str,
    config: Path,
    key: Path,
    key_name: str,
    until: datetime | None,
    receipts: Path | None,
    as_json: bool,
) -> int:
    """End the effect of a directive, and put that on record. Nothing takes its place.

    While its party has no directive in force, every search that involves the party is refused. To put another
    text in its place, publish that one with `replaces`.

    \b
    Example:
      countersign directive withdraw our-department-2026 --key our-key.pem --key-name pd.example/directives
    """
    settings = load(config)
    if receipts is not None:
        folder_for_receipts(receipts, "--receipts")
    day = until.date() if until is not None else SystemClock().now().astimezone(UTC).date()
    signer = SigningKey.load(key).note_signer(key_name)
    try:
        log_origin = signature.log_of(TrustRoots.load(settings.trust_roots))
    except TlogError as error:
        raise SettingsError(f"{settings.trust_roots}: log_verifier_keys: {error}") from error

    async def end() -> pb.WithdrawDirectiveResponse:
        async with DirectiveClient.connect(settings.policy.address, settings.tls) as client:
            on_record = await client.get(name)
            read = document.parse(name, on_record.manifest.encode(), on_record.rules.encode())
            note = sign_note(signature.withdrawal(read, day, log_origin), [signer])
            request = pb.WithdrawDirectiveRequest(
                name=name, effective_until=day.isoformat(), note=note
            )
            return await client.withdraw(request)

    done = _unless_refused(end())
    if done is None:
        return REFUSED
    if done.HasField("receipt"):
        entry = verify_receipt(done.receipt, TrustRoots.load(settings.trust_roots))
        if entry.directive_withdrawn.name != name:
            raise VerificationError("RECEIPT_OF_OTHER_TEXT", "the receipt is of another directive")
    receipt = done.receipt if done.HasField("receipt") else None
    return _print_done("Withdrawn", done.directive, receipt, receipts, as_json)


def _unless_refused(asked: Coroutine[Any, Any, Answer]) -> Answer | None:
    """The answer; None, once that is said, when what was handed in was refused."""
    try:
        return run(asked)
    except (InvalidRequest, Conflict, NotFound) as error:
        print_error(error)
        return None


def _print_done(
    what: str, directive: pb.Directive, receipt: Receipt | None, folder: Path | None, as_json: bool
) -> int:
    """What is on record now, once its receipt has been verified."""
    index = directive.withdrawn_index if what == "Withdrawn" else directive.published_index
    saved = ""
    if receipt is not None and folder is not None:
        stem = folder / f"{directive.name}-{what.lower()}"
        saved = str(save_receipt(stem, receipt))
    if as_json:
        shown = {"directive": message_dict(directive), "entry": index, "existing": receipt is None}
        print_json({**shown, "receipt": saved} if saved else shown)
        return OK
    console = out()
    if receipt is None:
        console.print(f"{escape(directive.name)} was on record already: ledger entry {index}")
    else:
        console.print(
            f"[bold green]{what}[/]: {escape(directive.name)} is ledger entry {index} (receipt verified)"
        )
    now = "in force now" if directive.in_force else "not in force now"
    console.print(f"Legal effect: {effect(directive)}; {now}.")
    if saved:
        console.print(f"Receipt: {escape(saved)}")
    return OK
