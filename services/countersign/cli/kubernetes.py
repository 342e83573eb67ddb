"""`countersign kubernetes`: what the manifests in deploy/k8s mount and do not bring."""

from pathlib import Path
from typing import Final

import click
import yaml

from countersign.cli.output import OK, USAGE, print_error
from countersign.installation.kubernetes import (
    Documents,
    Manifest,
    TooLarge,
    parties,
    trial,
    vocabulary,
)
from countersign.installation.pki import PkiError
from directive.vocabulary import VocabularyError
from shared.clock import SystemClock
from shared.registry import RegistryError
from shared.signing import BadKey

_UNUSABLE: Final = (
    BadKey,
    OSError,
    PkiError,
    RegistryError,
    TooLarge,
    ValueError,
    VocabularyError,
)

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_namespace = click.option(
    "--namespace", default="countersign", show_default=True, help="Namespace of the installation."
)


@click.group()
def kubernetes() -> None:
    """Write what the manifests in deploy/k8s mount: parties, keys, certificates."""


@kubernetes.command("parties")
@click.option("--registry", type=_FILE, required=True, help="Who takes part (TOML).")
@click.option(
    "--directives",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder with the vocabulary and the signed directives.",
)
@click.option("--trust-roots", type=_FILE, required=True, help="Everybody's public keys (JSON).")
@click.option("--trust-domain", required=True, help="SPIFFE trust domain of the installation.")
@click.option("--witnesses", type=_FILE, help="tlog-policy file, for a ledger with witnesses.")
@_namespace
def of_parties(
    registry: Path,
    directives: Path,
    trust_roots: Path,
    trust_domain: str,
    witnesses: Path | None,
    namespace: str,
) -> int:
    """Write the ConfigMaps countersign-parties and countersign-vocabulary. Nothing in them is secret.

    \b
    Example:
      countersign kubernetes parties --registry registry.toml --directives directives \\
        --trust-roots trust-roots.json --trust-domain faces.example | kubectl apply --server-side -f -
    """
    documents = Documents(registry, directives, trust_roots, witnesses)
    try:
        _write([parties(documents, trust_domain, namespace), vocabulary(documents, namespace)])
    except _UNUSABLE as error:
        print_error(error)
        return USAGE
    return OK


@kubernetes.command("trial")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the trial's keys; made when it is not there.",
)
@_namespace
def of_trial(folder: Path, namespace: str) -> int:
    """Write every Secret and ConfigMap of a trial: FOR TRYING OUT, everybody's keys are in one hand.

    \b
    Example:
      countersign kubernetes trial --dir .countersign-trial | kubectl apply --server-side -f -
    """
    try:
        _write(trial(folder, namespace, SystemClock().now()))
    except _UNUSABLE as error:
        print_error(error)
        return USAGE
    return OK


def _write(manifests: list[Manifest]) -> None:
    click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
