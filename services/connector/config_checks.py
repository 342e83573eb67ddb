"""What `countersign-connector config check` looks at: what a start does with the files."""

from connector.config import ConnectorSettings
from connector.expected import agree, demanded, expectations
from shared.config_check import Attempt, Checks
from shared.identity import SpiffeId
from shared.registry import Registry, TrustRoots
from shared.sealing import PrivateKey
from shared.signing import SigningKey


def checks(settings: ConnectorSettings) -> Checks:
    """Of a connector."""

    def keys() -> None:
        agree(
            settings,
            TrustRoots.load(settings.trust_roots),
            SigningKey.load(settings.answer_signing_key),
            PrivateKey.load(settings.probe_opening_key),
        )

    def expected() -> None:
        registry = Registry.load(settings.registry)
        expectations(settings, registry, TrustRoots.load(settings.trust_roots))

    files = ("registry", "trust_roots", "witnesses")
    return Checks(
        (
            Attempt("registry", lambda: Registry.load(settings.registry)),
            Attempt("trust_roots", lambda: TrustRoots.load(settings.trust_roots)),
            Attempt("answer_signing_key", lambda: SigningKey.load(settings.answer_signing_key)),
            Attempt("probe_opening_key", lambda: PrivateKey.load(settings.probe_opening_key)),
            Attempt("trust_roots", keys, ("answer_signing_key", "probe_opening_key")),
            Attempt("witnesses", lambda: demanded(settings.witnesses, ())),
            Attempt("directives", expected, files),
        ),
        SpiffeId(settings.trust_domain, "connector", settings.system),
    )
