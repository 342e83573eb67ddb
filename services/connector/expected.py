"""What a connector takes from its files before it takes an order."""

from collections.abc import Sequence
from pathlib import Path

from connector.config import ConnectorSettings
from connector.own_directives import load_own_directives
from connector.proof import Expectations
from directive import signature
from shared.registry import Registry, TrustRoots
from shared.sealing import PrivateKey
from shared.settings import SettingsError
from shared.signing import SigningKey, VerifyKey
from tlog.cosignature import LogVerifier, parse_log_vkey
from tlog.errors import TlogError
from tlog.policy import NO_QUORUM, Policy


def expectations(
    settings: ConnectorSettings, registry: Registry, trust: TrustRoots
) -> Expectations:
    """What orders are checked against; raises SettingsError."""
    system = registry.systems.get(settings.system)
    gallery = registry.galleries.get(settings.gallery)
    if system is None:
        raise SettingsError(f"system: the registry has no system {settings.system!r}")
    if gallery is None or gallery.system != settings.system:
        raise SettingsError(f"gallery: {settings.system!r} has no gallery {settings.gallery!r}")
    try:
        logs = tuple(parse_log_vkey(key) for key in trust.log_verifier_keys)
        signers = signature.required(trust)
    except TlogError as error:
        raise SettingsError(f"trust_roots: a verifier key cannot be read: {error}") from error
    brokers = [VerifyKey(raw) for raw in trust.broker_verify_keys]
    return Expectations(
        system=settings.system,
        gallery=settings.gallery,
        broker_keys={key.key_id: key for key in brokers},
        logs=logs,
        own_directives=load_own_directives(
            settings.directives, registry, system.operator, signers, trust.vocabulary_signers
        ),
        witnesses=demanded(settings.witnesses, logs),
    )


def demanded(path: Path | None, logs: Sequence[LogVerifier]) -> Policy | None:
    """The witnesses that must have cosigned, for these logs whatever it names; raises SettingsError."""
    if path is None:
        return None
    try:
        policy = Policy.parse(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"witnesses: cannot read {path}: {error.strerror}") from error
    except TlogError as error:
        raise SettingsError(f"witnesses: {path}: {error}") from error
    if policy.quorum == NO_QUORUM:
        # Whoever names witnesses means to be protected by them.
        raise SettingsError(f"witnesses: {path} demands none: it says 'quorum {NO_QUORUM}'")
    return policy.with_logs(logs)


def agree(
    settings: ConnectorSettings, trust: TrustRoots, answers: SigningKey, probes: PrivateKey
) -> None:
    """Raises SettingsError when the trust roots know the system by other keys."""
    published = trust.systems.get(settings.system)
    if published is not None and (
        published.answer_verify_key != answers.verify_key.raw
        or published.sealing_public_key != probes.public_key
    ):
        # With such keys no probe would open and no answer would be believed.
        raise SettingsError(f"trust_roots: {settings.system!r} is known by other keys than these")
