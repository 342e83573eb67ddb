"""`countersign registry`: what an agency's administrator does to its registry document."""

import re
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.escaping import escape
from countersign.cli.output import OK, REFUSED, json_option, out, print_json, table
from countersign.cli.registry_list import list_owners
from countersign.cli.registry_orders import cosign_order, expel, hand_in, recover
from countersign.cli.registry_publish import publish
from countersign.installation.files import write_public, write_secret
from directive.findings import Finding
from registry import difference, document, publication, secret, signature, skeleton
from registry.document import AGENCY_FILE, OFFICERS_FILE, Document
from registry.findings import RegistryRefused
from registry.review import Reviewed, review
from registry.secret import SECRET_FILE
from registry.signature import SIGNATURE_FILE
from shared.clock import SystemClock
from shared.registry import Registry
from shared.settings import SettingsError
from shared.signing import SigningKey

FOLDER: Final = click.Path(path_type=Path, file_okay=False, exists=True)
_OWNER: Final = re.compile(r"[A-Z0-9]{9}|[A-Z]{2}(-[A-Z0-9]{1,3})?")


@click.group()
def registry() -> None:
    """Register your agency: what it operates, owns and keeps, and its officers."""


def _key_options(command: Any) -> Any:
    name = click.option("--name", required=True, help="The key's name (pd.example/registry).")
    key = click.option(
        "--key",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="Ed25519 private key (PEM) of the owner.",
    )
    return key(name(command))


def _beside_option(command: Any) -> Any:
    return click.option(
        "--beside",
        type=FOLDER,
        multiple=True,
        help="Folder of another owner, whose names are used. May be given several times.",
    )(command)


@registry.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--owner", required=True, help="Whose it is: an ORI, or a jurisdiction (US-CA).")
@_key_options
@click.option(
    "--from",
    "registry_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="Registry file (TOML) to take the owner's entries from.",
)
@json_option
def init(
    folder: Path, owner: str, key: Path, name: str, registry_file: Path | None, as_json: bool
) -> int:
    """Begin a registry document: a folder with small files to change. Needs no server.

    Makes the secret that keeps your officers from being guessed: back it up, and give it to nobody.

    \b
    Example:
      openssl genpkey -algorithm ed25519 -out our-key.pem
      countersign registry init our-registry --owner CA0194200 --key our-key.pem --name pd.example/registry
    """
    if not _OWNER.fullmatch(owner):
        raise SettingsError(f"{owner!r} is neither an ORI nor a jurisdiction")
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty, and nothing in it was changed")
    known = Registry.load(registry_file) if registry_file is not None else None
    vkey = SigningKey.load(key).note_signer(name).vkey
    today = SystemClock().now().astimezone(UTC).date()
    for file, text in skeleton.files(owner, vkey, known, today).items():
        # Who its officers are is nobody's business.
        (write_secret if file == OFFICERS_FILE else write_public)(folder / file, text.encode())
    write_secret(folder / SECRET_FILE, secret.new())
    if as_json:
        files = sorted(path.name for path in folder.iterdir())
        print_json({"folder": str(folder), "owner": owner, "files": files})
        return OK
    console = out()
    console.print(f"A registry document of {escape(owner)}, to be changed: {escape(str(folder))}")
    console.print(f"Next: countersign registry lint {escape(str(folder))}")
    return OK


@registry.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@_beside_option
@json_option
def lint(folders: tuple[Path, ...], beside: tuple[Path, ...], as_json: bool) -> int:
    """Say what is wrong with registry documents, with file and line. Needs no server.

    Names of others (the system that holds a gallery of yours) are known if their folders are given too.

    \b
    Example:
      countersign registry lint our-registry --beside their-registry
    """
    return _told(_reviewed(folders, beside), as_json)


@registry.command()
@click.argument("folder", type=FOLDER)
@_key_options
@click.option("--serial", type=int, default=None, help="Serial number [default: the last, and 1].")
@click.option(
    "--log",
    "log_origin",
    required=True,
    metavar="ORIGIN",
    help="Name of the ledger in which it is to be published, as in its verifier key: it counts in no other.",
)
@click.option("--new-secret", is_flag=True, help="Make officers.secret anew: it was lost, or seen.")
@_beside_option
@json_option
def sign(
    folder: Path,
    key: Path,
    name: str,
    serial: int | None,
    log_origin: str,
    new_secret: bool,
    beside: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Sign a registry document, if nothing is wrong with it. Needs no server.

    Writes registry.sig, under the serial number after that of the last signature. With --new-secret every
    officer is published anew.

    \b
    Example:
      countersign registry sign our-registry --key our-key.pem --name pd.example/registry \
          --log ledger.example/countersign
    """
    where = folder.resolve()
    signer = SigningKey.load(key).note_signer(name)
    if new_secret:
        write_secret(where / SECRET_FILE, secret.new())
    reviewed = _reviewed((where,), beside)
    read = reviewed[0].document
    if read is None or any(one.findings for one in reviewed):
        return _told(reviewed, as_json)
    try:
        last = signature.read_statement(where)
        number = serial if serial is not None else (last.serial + 1 if last else 1)
        if last is not None and number <= last.serial:
            raise SettingsError(f"the serial number must be more than {last.serial}")
        note = signature.sign(read, secret.of(where, read), number, signer, log_origin)
    except RegistryRefused as refused:
        return _told([Reviewed(where, read, refused.findings)], as_json)
    write_public(where / SIGNATURE_FILE, note.encode())
    listed = signer.vkey in read.public.keys.registry
    if as_json:
        print_json({"signed": True, "serial": number, "verifier_key": signer.vkey, "note": note})
        return OK
    console = out()
    signed = escape(str(where / SIGNATURE_FILE))
    console.print(f"[bold green]Signed[/]: {signed}, serial number {number}")
    if not listed:
        console.print(
            "The next version must be signed with another key: this one is not in [keys]."
        )
    click.echo(signer.vkey)
    return OK


@registry.command()
@click.argument("folder", type=FOLDER)
@json_option
def show(folder: Path, as_json: bool) -> int:
    """Show what a registry document says, and what of it the public would see. Needs no server.

    Ends with 1 when its signature is missing, or not of these files by a key that they name.

    \b
    Example:
      countersign registry show our-registry
    """
    where = folder.resolve()
    try:
        read = document.read(where)
    except RegistryRefused as refused:
        return _told([Reviewed(where, None, refused.findings)], as_json)
    said, problem = None, ""
    try:
        keys = signature.parse_keys(read.public.keys.registry)
        said = publication.load(where, keys).statement
    except RegistryRefused as refused:
        problem = str(refused)
    if as_json:
        shown = {
            "owner": read.owner,
            "public": read.public.model_dump(mode="json"),
            "officers": len(read.officers),
            "statement": said.text if said else None,
            "sha256": said.sha256.hex() if said else None,
            "problem": problem,
        }
        print_json(shown)
    else:
        _print_document(read, said, problem)
    return OK if said is not None else REFUSED


@registry.command()
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
@json_option
def diff(old: Path, new: Path, as_json: bool) -> int:
    """Compare two versions of a registry document, officers included. Needs no server.

    \b
    Example:
      countersign registry diff our-registry-of-may our-registry
    """
    try:
        pair = document.read(old.resolve()), document.read(new.resolve())
    except RegistryRefused as refused:
        return _told([Reviewed(old, None, refused.findings)], as_json)
    if pair[0].owner != pair[1].owner:
        raise SettingsError(f"documents of {pair[0].owner} and {pair[1].owner}")
    changes = difference.compare(*pair)
    if as_json:
        listed = [{"what": one.what, "old": one.old, "new": one.new} for one in changes]
        print_json({"changes": listed})
        return OK
    if not changes:
        out().print("They say the same.")
        return OK
    rows = table("what", "old", "new", text={"old", "new"})
    for one in changes:
        rows.add_row(escape(one.what), escape(one.old), escape(one.new))
    out().print(rows)
    return OK


for command in (publish, recover, expel, cosign_order, hand_in, list_owners):
    registry.add_command(command)


def _reviewed(folders: tuple[Path, ...], beside: tuple[Path, ...]) -> list[Reviewed]:
    return review([one.resolve() for one in folders], [one.resolve() for one in beside])


def _told(reviewed: list[Reviewed], as_json: bool) -> int:
    findings = [finding for one in reviewed for finding in one.findings]
    if as_json:
        print_json({"findings": [_finding_json(one) for one in findings]})
    else:
        console = out()
        for one in reviewed:
            if not one.findings:
                console.print(f"[bold green]well[/] {escape(one.folder.name)}")
            for finding in one.findings:
                console.print(f"[bold red]refused[/] {escape(str(finding))}", soft_wrap=True)
    return REFUSED if findings else OK


def _finding_json(finding: Finding) -> dict[str, Any]:
    place = finding.place
    return {
        "guard": finding.guard,
        "file": finding.file,
        "about": finding.rule,
        "message": finding.message,
        "line": place.line if place else None,
    }


def _print_document(read: Document, said: signature.Statement | None, problem: str) -> None:
    public = read.public
    rows = table("what", "says", title=f"Registry document of {read.owner}", text={"says"})
    if public.agency is not None:
        rows.add_row("agency", escape(f"{public.agency.name}, {public.agency.jurisdiction}"))
    rows.add_row("keys", escape("\n".join(public.keys.registry)))
    for section in ("systems", "galleries", "lists", "offence_sets", "oversight", "members"):
        names = getattr(public, section)
        if names:
            rows.add_row(section, escape(", ".join(names)))
    rows.add_row("officers", f"{len(read.officers)} (the public sees how many, not who)")
    rows.add_row("signed", escape(f"serial {said.serial}" if said else problem))
    if said is not None:
        rows.add_row(AGENCY_FILE, f"sha256:{said.document_sha256.hex()}")
        rows.add_row("statement", f"sha256:{said.sha256.hex()}")
    out().print(rows)
