"""Which keys of the ledger are trusted: those one names, or those in one's own trust roots."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import click

from countersign.cli.connection import load
from countersign.cli.ledger_files import VKEY_BYTES_MAX, read_bounded
from countersign.client import ClientSettings, VerificationError
from shared.registry import TrustRoots
from tlog.errors import TlogError
from tlog.note import Verifier


def trusted(settings: ClientSettings) -> list[Verifier]:
    """The keys in the trust roots of a configuration; raises RegistryError."""
    trust = TrustRoots.load(settings.trust_roots)
    return [_parse(vkey) for vkey in trust.log_verifier_keys]


def given(keys: Sequence[str], config: Path | None) -> list[Verifier]:
    """The keys given as text or file, else those of the configuration. Raises click.UsageError."""
    if not keys:
        if config is None:
            raise click.UsageError("give the ledger's verifier key with --key, or a --config")
        return trusted(load(config))
    return [_from_text_or_file(key) for key in keys]


def _from_text_or_file(key: str) -> Verifier:
    # A key is never a file's name: its parts are joined by plus signs and checked against each other.
    with contextlib.suppress(TlogError):
        return Verifier.parse(key.strip())
    try:
        content = read_bounded(Path(key), VKEY_BYTES_MAX)
    except VerificationError as error:
        raise click.UsageError(f"neither a verifier key nor a file with one: {error}") from error
    return _parse(content.decode("utf-8", "replace").strip())


def _parse(vkey: str) -> Verifier:
    try:
        return Verifier.parse(vkey)
    except TlogError as error:
        raise click.UsageError(f"not a verifier key: {error}") from error
