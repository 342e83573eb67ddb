"""`countersign registry recover`, `expel`, `cosign` and `order`: what registrars do about an owner."""

import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.escaping import escape
from countersign.cli.output import (
    OK,
    REFUSED,
    cells,
    err,
    json_option,
    out,
    print_error,
    print_json,
    progress,
    table,
)
from countersign.client.documents import RegistrationClient
from countersign.client.verify import VerificationError, verify_receipt
from countersign.installation.files import write_public
from countersign.policy.v1 import policy_pb2 as pb
from registry.document import read_file
from registry.findings import RegistryRefused
from registry.orders import NOTE_BYTES_MAX, Action, Order, SignedOrder, cosign, sign
from shared.clock import SystemClock
from shared.errors import InvalidRequest
from shared.registry import TrustRoots
from shared.settings import SettingsError
from shared.signing import SigningKey

DAYS: Final = 30
"""In which a quorum can be brought together; what is signed lies in no drawer for longer."""

FOUND: Final = click.Path(path_type=Path, dir_okay=False, exists=True)


def _key_options(command: Any) -> Any:
    name = click.option("--name", required=True, help="The key's name, as the trust roots have it.")
    key = click.option(
        "--key", required=True, type=FOUND, help="Ed25519 private key (PEM) of the registrar."
    )
    return key(name(command))


def _order_options(command: Any) -> Any:
    """Adds what every order says, and makes it of that."""

    @click.argument("owner")
    @click.option(
        "--log",
        "log_origin",
        required=True,
        metavar="ORIGIN",
        help="Name of the ledger in which it is to count.",
    )
    @click.option(
        "--authority", required=True, help="By what power: a statute, an order of a board, a court."
    )
    @click.option("--reason", required=True, help="Why, in one line. Everybody will read it.")
    @click.option(
        "--follows",
        default="",
        metavar="SHA256",
        help="The order before about this owner, as `registry list` tells it.",
    )
    @click.option(
        "--before",
        "before",
        type=click.DateTime(["%Y-%m-%d"]),
        default=None,
        help=f"First day (UTC) on which it is too late to put it on record [default: in {DAYS} days].",
    )
    @_key_options
    @click.option(
        "--output",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="File for the order.",
    )
    @json_option
    @functools.wraps(command)
    def with_order(
        *,
        owner: str,
        log_origin: str,
        authority: str,
        reason: str,
        follows: str,
        before: datetime | None,
        **rest: Any,
    ) -> Any:
        try:
            digest = bytes.fromhex(follows.removeprefix("sha256:")) or None
        except ValueError as error:
            raise SettingsError(f"--follows: {error}") from error

        def made(action: Action, keys: tuple[str, ...]) -> Order:
            last = before.date() if before is not None else _in_days(DAYS)
            return Order(log_origin, owner, digest, last, action, keys, authority, reason)

        return command(made=made, **rest)

    return with_order


@click.command()
@click.option(
    "--new-key",
    "keys",
    multiple=True,
    required=True,
    metavar="VKEY",
    help="Verifier key that the owner made anew. May be given several times.",
)
@_order_options
def recover(
    made: Callable[[Action, tuple[str, ...]], Order],
    keys: tuple[str, ...],
    key: Path,
    name: str,
    output: Path,
    as_json: bool,
) -> int:
    """Begin an order that gives an owner new keys: its own are lost, or known to others. Needs no server.

    Writes it with your signature. The other registrars add theirs (`registry cosign`), then anybody hands it
    in (`registry order`). From then on no key of before signs anything for the owner: its directives can be
    neither published nor withdrawn until it has published under the new keys. What it registered stays until
    then; where a stranger may have changed that, expel the owner first.

    \b
    Example:
      countersign registry recover CA0194200 --new-key pd.example/registry-2+1a2b3c4d+AQ... \
          --log ledger.example/countersign --authority "Order 26-17 of the board" \
          --reason "Both keys burnt with the office" --key my-key.pem --name registrar-1.example \
          --output order.note
    """
    return _begun(made("recover", keys), key, name, output, as_json)


@click.command()
@_order_options
def expel(
    made: Callable[[Action, tuple[str, ...]], Order],
    key: Path,
    name: str,
    output: Path,
    as_json: bool,
) -> int:
    """Begin an order that expels an owner: every search that involves it is refused. Needs no server.

    Writes it with your signature; see `registry recover` for what follows. Its officers are unknown, nobody
    vouches for them, its overseers see nothing, and its keys sign nothing. To take it in again, order its
    recovery.
    A union is asked as before, and refuses: to end one, give its keys to somebody who takes out its members.

    \b
    Example:
      countersign registry expel CA0194200 --log ledger.example/countersign \
          --authority "Order 26-18 of the board" --reason "Dissolved" \
          --key my-key.pem --name registrar-1.example --output order.note
    """
    return _begun(made("expel", ()), key, name, output, as_json)


@click.command("cosign")
@click.argument("order_file", metavar="ORDER", type=FOUND)
@_key_options
@json_option
def cosign_order(order_file: Path, key: Path, name: str, as_json: bool) -> int:
    """Show an order that others have signed, and add your signature to it. Needs no server.

    \b
    Example:
      countersign registry cosign order.note --key my-key.pem --name registrar-2.example
    """
    try:
        note = cosign(read_file(order_file, NOTE_BYTES_MAX), SigningKey.load(key).note_signer(name))
    except RegistryRefused as refused:
        return _refused(refused)
    write_public(order_file, note.encode())
    return _told(SignedOrder.parse(note), order_file, as_json)


@click.command("order")
@click.argument("order_file", metavar="ORDER", type=FOUND)
@config_option
@json_option
def hand_in(order_file: Path, config: Path, as_json: bool) -> int:
    """Put an order that a quorum has signed on record. It counts from the next search on.

    Anybody may hand it in: what counts are the signatures. The policy service refuses an order of too few
    registrars, for another ledger, whose day has come, or that was on record before.

    \b
    Example:
      countersign registry order order.note
    """
    settings = load(config)
    try:
        note = read_file(order_file, NOTE_BYTES_MAX).decode(errors="replace")
        order = SignedOrder.parse(note).order
    except RegistryRefused as refused:
        return _refused(refused)

    async def handed_in() -> pb.PublishOrderResponse:
        async with RegistrationClient.connect(settings.policy.address, settings.tls) as client:
            return await client.order(note)

    try:
        with progress("looked at by the policy service"):
            done = run(handed_in())
    except InvalidRequest as error:
        print_error(error)
        return REFUSED
    index = None
    if done.HasField("receipt"):
        entry = verify_receipt(done.receipt, TrustRoots.load(settings.trust_roots))
        if entry.registrars_ordered.note != note:
            raise VerificationError("RECEIPT_OF_OTHER_TEXT", "the receipt is of another order")
        index = done.receipt.index
    if as_json:
        print_json({"owner": order.owner, "order": order.action, "entry": index})
    elif index is None:
        out().print(f"{escape(order.owner)}: on record already")
    else:
        what = f"{escape(order.owner)}, {order.action}: ledger entry {index} (receipt verified)"
        out().print(f"[bold green]On record[/]: {what}")
    return OK


def _begun(order: Order, key: Path, name: str, output: Path, as_json: bool) -> int:
    try:
        note = sign(order, SigningKey.load(key).note_signer(name))
    except RegistryRefused as refused:
        return _refused(refused)
    write_public(output, note.encode())
    return _told(SignedOrder.parse(note), output, as_json)


def _told(signed: SignedOrder, file: Path, as_json: bool) -> int:
    """What is signed, so that nobody signs what was not read."""
    order = signed.order
    names = [one.name for one in signed.note.signatures]
    if as_json:
        print_json({"text": order.text, "sha256": order.sha256.hex(), "signed_by": names})
        return OK
    rows = table("what", "says", title=f"Order to {order.action} {order.owner}", text={"says"})
    for what, says in (
        ("log", order.log),
        ("new keys", "\n".join(order.keys) or "none"),
        ("authority", order.authority),
        ("reason", order.reason),
        ("on record before", order.before.isoformat()),
        ("follows", order.follows.hex() if order.follows else "nothing"),
        ("sha256", order.sha256.hex()),
        ("signed by", "\n".join(names)),
    ):
        rows.add_row(*cells(what, says))
    out().print(rows)
    out().print(f"[bold green]Signed[/]: {escape(str(file))}")
    return OK


def _refused(refused: RegistryRefused) -> int:
    err().print(f"[bold red]refused[/] {escape(str(refused))}", soft_wrap=True)
    return REFUSED


def _in_days(days: int) -> date:
    return (SystemClock().now().astimezone(UTC) + timedelta(days=days)).date()
