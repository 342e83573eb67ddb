"""`countersign directive init`, `sign` and `diff`: what an author does to a folder."""

import re
import shlex
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any

import click

from countersign.cli.directive_local import FOLDER, finding_json, verdict_json, world_options
from countersign.cli.directive_view import print_difference, print_review
from countersign.cli.escaping import escape
from countersign.cli.output import OK, REFUSED, bar, json_option, out, print_json
from countersign.installation.files import write_public
from directive import cases, difference, publication, review, signature, skeleton
from directive.book import load_directive
from directive.document import NAME_PATTERN, PREFIX_PATTERN, Document
from directive.entities import known_names
from directive.findings import DirectiveRefused
from directive.signature import SIGNATURE_FILE
from directive.vocabulary import Vocabulary
from shared.clock import SystemClock
from shared.registry import Registry
from shared.settings import SettingsError
from shared.signing import SigningKey
from tlog.errors import TlogError
from tlog.note import check_key_name


def _today() -> date:
    return SystemClock().now().astimezone(UTC).date()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--party", default=None, help="Who orders: an ORI, or a jurisdiction (US-CA).")
@click.option(
    "--prefix", default=None, help="With which the party's rules begin [default: made from it]."
)
@world_options
@json_option
@click.pass_context
def init(
    context: click.Context,
    folder: Path,
    party: str | None,
    prefix: str | None,
    vocabulary: Vocabulary,
    registry: Registry,
    as_json: bool,
) -> int:
    """Begin a directive: a folder with three small files to change. Needs no server.

    It passes every guard and gate as it is. Without --party it is for the registry's first agency.

    \b
    Example:
      countersign directive init our-department-2026 --party CA0194200 --registry registry.toml
    """
    name = folder.resolve().name
    if not re.fullmatch(NAME_PATTERN, name):
        raise SettingsError(
            f"{name!r} cannot be a directive's name: lower case, digits and hyphens"
        )
    jurisdictions = {ori: agency.jurisdiction for ori, agency in registry.agencies.items()}
    chosen = party or min(jurisdictions, default="")
    jurisdiction = jurisdictions.get(chosen, chosen)
    if chosen not in {*jurisdictions, *registry.jurisdictions}:
        raise SettingsError(
            f"the registry has no agency and no jurisdiction {chosen!r}: give an ORI or a code that "
            "stands in it (--party), or another registry (--registry)"
        )
    begin = prefix or skeleton.default_prefix(chosen)
    if not re.fullmatch(PREFIX_PATTERN, begin):
        raise SettingsError(f"{begin!r} cannot be a prefix: capitals and digits, then a hyphen")
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} is not empty, and nothing in it was changed")
    written = skeleton.files(
        name,
        chosen,
        jurisdiction,
        begin,
        vocabulary.version,
        _today() + timedelta(days=1),
    )
    for file, text in written.items():
        write_public(folder / file, text.encode())
    if as_json:
        print_json({"folder": str(folder), "party": chosen, "files": sorted(written)})
        return OK
    console = out()
    console.print(f"A directive of {escape(chosen)}, to be changed: {escape(str(folder))}")
    test = ["countersign", "directive", "test", str(folder)]
    for option, said in (("--vocabulary", "vocabulary_folder"), ("--registry", "registry_file")):
        if context.params[said] is not None:  # another one may not know the party
            test += [option, str(context.params[said])]
    console.print(f"Next: {escape(shlex.join(test))}", soft_wrap=True)
    return OK


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Ed25519 private key (PEM) of the party.",
)
@click.option("--name", required=True, help="The key's name, as the party registered it.")
@click.option(
    "--log",
    "log_origin",
    required=True,
    metavar="ORIGIN",
    help="Name of the ledger in which it is to be published, as in its verifier key: it counts in no other.",
)
@click.option(
    "--received-late", is_flag=True, help="Sign though its effect begins on a day that is past."
)
@world_options
@json_option
def sign(
    folder: Path,
    key: Path,
    name: str,
    log_origin: str,
    received_late: bool,
    vocabulary: Vocabulary,
    registry: Registry,
    as_json: bool,
) -> int:
    """Sign a directive, if it passes every guard, case and gate. Needs no server.

    Writes directive.sig, over the exact bytes of the three files and of the vocabulary, and prints
    the verifier key that the party must have registered. Signs nothing that could not be published.

    \b
    Example:
      openssl genpkey -algorithm ed25519 -out our-key.pem
      countersign directive sign our-department-2026 --key our-key.pem --name pd.example/directives \
          --log ledger.example/countersign
    """
    where = folder.resolve()
    signer = SigningKey.load(key).note_signer(name)
    try:
        check_key_name(log_origin)
    except TlogError as error:
        raise SettingsError(f"--log: {log_origin!r} is no name of a log: {error}") from error
    said = review.review(where, vocabulary, registry, bar)
    findings = list(said.findings)
    if said.directive is not None:
        findings += publication.check_dates(
            said.directive.document, _today(), received_late=received_late
        )
    if said.directive is None or findings:
        if as_json:
            print_json({"signed": False, "findings": [finding_json(one) for one in findings]})
        else:
            print_review(out(), review.with_findings(said, findings))
        return REFUSED
    note = signature.sign(where, said.directive.document, vocabulary, signer, log_origin)
    write_public(where / SIGNATURE_FILE, note.encode())
    if as_json:
        print_json({"signed": True, "verifier_key": signer.vkey, "note": note})
    else:
        _print_signed(said.directive.document, where, signer.vkey)
    return OK


def _print_signed(document: Document, folder: Path, vkey: str) -> None:
    console = out()
    console.print(f"[bold green]Signed[/]: {escape(str(folder / SIGNATURE_FILE))}")
    console.print(f"{escape(document.manifest.party)} must have registered this verifier key:")
    click.echo(vkey)


@click.command()
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
@world_options
@json_option
def diff(old: Path, new: Path, vocabulary: Vocabulary, registry: Registry, as_json: bool) -> int:
    """Compare two directives: rules, citations, dates, and what the cases of both come to.

    Needs no server. Ends with 0 whether they differ or not, and with 1 when one of them cannot be read.

    \b
    Example:
      countersign directive diff directives/lapd-2020-11-13 my-directives/lapd-2026
    """
    known = known_names(registry)
    try:
        pair = [
            (load_directive(folder.resolve(), vocabulary, known), cases.load(folder.resolve()))
            for folder in (old, new)
        ]
        parties = {one.document.manifest.party for one, _ in pair}
        if len(parties) > 1:
            raise SettingsError(f"directives of different parties: {', '.join(sorted(parties))}")
        found = difference.compare(pair[0], pair[1], vocabulary, registry)
    except DirectiveRefused as refused:
        if as_json:
            print_json({"findings": [finding_json(one) for one in refused.findings]})
        else:
            for finding in refused.findings:
                out().print(f"[bold red]refused[/] {escape(str(finding))}", soft_wrap=True)
        return REFUSED
    if as_json:
        print_json(_difference_json(found))
    else:
        print_difference(out(), found)
    return OK


def _difference_json(found: difference.Difference) -> dict[str, Any]:
    def changes(listed: tuple[difference.Change, ...]) -> list[dict[str, str]]:
        return [{"what": one.what, "old": one.old, "new": one.new} for one in listed]

    return {
        "manifest": changes(found.manifest),
        "rules": {
            "added": [rule.id for rule in found.added],
            "removed": [rule.id for rule in found.removed],
            "changed": [{"id": one.id, "changes": changes(one.changes)} for one in found.changed],
        },
        "verdicts": [verdict_json(one) for one in found.verdicts],
        "cases_asked": found.cases_asked,
    }
