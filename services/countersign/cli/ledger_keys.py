"""Which keys of the ledger are trusted: those one names, or those in one's own trust roots."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import click

from countersign.cli.connection import load
from countersign.cli.ledger_files import VKEY_BYTES_MAX, read_bounded
from countersign.client import ClientSettings, VerificationError
from shared.registry import TrustRoots
from tlog.cosignature import LogVerifier, parse_log_vkey
from tlog.errors import TlogError
from tlog.folder import load_policy
from tlog.policy import Policy


def trusted(settings: ClientSettings) -> list[LogVerifier]:
    """The keys in the trust roots of a configuration; raises RegistryError."""
    trust = TrustRoots.load(settings.trust_roots)
    return [_parse(vkey) for vkey in trust.log_verifier_keys]


def given(
    keys: Sequence[str], policy: Path | None, config: Path | None, *, with_peers: bool = False
) -> Policy:
    """The policy to judge by: a file, with keys in place of its logs, or the keys of the configuration.

    Of a configuration, the keys of the peers' ledgers too where they are wanted.

    Raises click.UsageError.
    """
    found = Policy.of_logs([]) if policy is None else _load_policy(policy)
    if keys:
        return found.with_logs([_from_text_or_file(key) for key in keys])
    if found.logs:
        return found
    if config is None:
        raise click.UsageError(
            "give the ledger's verifier key with --key, a --policy that names the ledger, or a --config"
        )
    settings = load(config)
    peers = TrustRoots.load(settings.trust_roots).peers if with_peers else ()
    return found.with_logs(
        [
            *trusted(settings),
            *(_parse(vkey) for peer in peers for vkey in peer.log_verifier_keys),
        ]
    )


def _load_policy(path: Path) -> Policy:
    try:
        return load_policy(path)
    except TlogError as error:
        raise click.UsageError(f"not a policy: {error}") from error


def _from_text_or_file(key: str) -> LogVerifier:
    # A key is never a file's name: its parts are joined by plus signs and checked against each other.
    with contextlib.suppress(TlogError):
        return parse_log_vkey(key.strip())
    try:
        content = read_bounded(Path(key), VKEY_BYTES_MAX)
    except VerificationError as error:
        raise click.UsageError(f"neither a verifier key nor a file with one: {error}") from error
    try:
        return parse_log_vkey(content.decode("utf-8", "replace").strip())
    except TlogError as error:
        raise click.UsageError(f"not a log's verifier key: {error}") from error


def _parse(vkey: str) -> LogVerifier:
    try:
        return parse_log_vkey(vkey)
    except TlogError as error:
        raise click.UsageError(f"not a verifier key: {error}") from error
