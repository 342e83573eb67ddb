"""`countersign vocabulary`: the words that directives are written in, for whoever owns them."""

import asyncio
import tempfile
from pathlib import Path

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.directive_local import FOLDER, report
from countersign.cli.escaping import escape
from countersign.cli.output import OK, REFUSED, bar, json_option, out, print_error, print_json
from countersign.client import ClientSettings
from countersign.client.documents import DirectiveClient
from countersign.installation import bundled
from countersign.installation.files import write_public
from countersign.policy.v1.policy_pb2 import GetDirectiveResponse
from directive import review, vocabulary_signature
from directive.document import CASES_FILE, MANIFEST_FILE, RULES_FILE
from directive.vocabulary import Vocabulary, VocabularyError
from directive.vocabulary_signature import SIGNATURE_FILE
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError
from shared.signing import SigningKey

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group()
def vocabulary() -> None:
    """Sign a vocabulary, and try a new one on every directive that is in force."""


@vocabulary.command()
@click.argument("folder", type=FOLDER)
@click.option("--key", required=True, type=FILE, help="Ed25519 private key (PEM) of its owner.")
@click.option("--name", required=True, help="The key's name, as the trust roots have it.")
@json_option
def sign(folder: Path, key: Path, name: str, as_json: bool) -> int:
    """Sign a vocabulary and all versions before it. Needs no server.

    Writes vocabulary.sig, and prints the verifier key for `vocabulary_signers` in the trust roots. A version
    that takes something away from an earlier one is refused.

    \b
    Example:
      countersign vocabulary sign our-vocabulary --key our-key.pem --name operator.example/vocabulary
    """
    loaded = _loaded(folder)
    signer = SigningKey.load(key).note_signer(name)
    write_public(folder / SIGNATURE_FILE, vocabulary_signature.sign(loaded, signer).encode())
    if as_json:
        print_json({"version": loaded.version, "verifier_key": signer.vkey})
        return OK
    out().print(f"[bold green]Signed[/]: {escape(str(folder / SIGNATURE_FILE))}")
    click.echo(signer.vkey)
    return OK


@vocabulary.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--trust-roots", "trust_file", required=True, type=FILE, help="Whose signature counts."
)
@json_option
def check(folder: Path, trust_file: Path, as_json: bool) -> int:
    """Say whether a vocabulary is signed by who the trust roots name. Needs no server.

    \b
    Example:
      countersign vocabulary check our-vocabulary --trust-roots trust-roots.json
    """
    signers = TrustRoots.load(trust_file).vocabulary_signers
    if not signers:
        raise SettingsError(f"{trust_file} names no vocabulary_signers")
    try:
        loaded = vocabulary_signature.load(folder, signers)
    except VocabularyError as error:
        print_error(error)
        return REFUSED
    versions = [loaded.version, *sorted(loaded.earlier, reverse=True)]
    if as_json:
        print_json({"signed": True, "versions": versions, "sha256": loaded.sha256.hex()})
    else:
        out().print(f"[bold green]signed[/] version {escape(', '.join(versions))}")
    return OK


@vocabulary.command()
@click.argument("folder", type=FOLDER)
@config_option
@click.option("--registry", "registry_file", type=FILE, default=None, help="Registry (TOML).")
@json_option
def test(folder: Path, config: Path, registry_file: Path | None, as_json: bool) -> int:
    """Try a new vocabulary on every directive that the policy service has: guards, cases and gates.

    Ends with 1 when a directive would be refused, or one of its cases come out otherwise. Do this before the
    new vocabulary is given to the services.

    \b
    Example:
      countersign vocabulary test our-vocabulary --registry registry.toml
    """
    loaded, registry = _loaded(folder), Registry.load(registry_file or bundled.registry())
    found = run(_directives(load(config)))
    reviews = []
    with tempfile.TemporaryDirectory(prefix="countersign-vocabulary-") as scratch:
        for one in found:
            where = Path(scratch) / Path(one.directive.name).name
            where.mkdir()
            (where / MANIFEST_FILE).write_bytes(one.manifest.encode())
            (where / RULES_FILE).write_bytes(one.rules.encode())
            (where / CASES_FILE).write_bytes(one.cases.encode())
            reviews.append(review.review(where, loaded, registry, bar))
    return report(reviews, as_json)


def _loaded(folder: Path) -> Vocabulary:
    try:
        return Vocabulary.load(folder)
    except VocabularyError as error:
        raise SettingsError(str(error)) from error


async def _directives(settings: ClientSettings) -> list[GetDirectiveResponse]:
    """Those that are or will be in force, whole."""
    async with DirectiveClient.connect(settings.policy.address, settings.tls) as client:
        listed = await client.list()
        found = await asyncio.gather(*(client.get(one.name) for one in listed))
    without = [one.directive.name for one in found if not one.cases]
    if without:
        raise SettingsError(
            f"the policy service reads its directives from a folder: test that one with "
            f"`directive test --vocabulary` ({without[0]} came without its cases)"
        )
    return list(found)
