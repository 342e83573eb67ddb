"""What `countersign config check` looks at in an agency system's or oversight body's file."""

from countersign.client.config import ClientSettings
from shared.config_check import Attempt, Checks, identity_in
from shared.registry import TrustRoots
from shared.settings import SettingsError
from shared.signing import SigningKey


def checks(settings: ClientSettings) -> Checks:
    """Of whoever calls."""
    provider = settings.identity_provider

    def agency() -> None:
        said = identity_in(settings.tls.certificate)
        if said is None or (settings.agency and said.name != settings.agency):
            raise SettingsError(
                f"{settings.tls.certificate} is of {said or 'nobody with a SPIFFE ID'}, not of "
                f"{settings.agency or 'anybody whom the servers know'}"
            )

    attempts = [
        Attempt("trust_roots", lambda: TrustRoots.load(settings.trust_roots)),
        Attempt("agency", agency, ("tls",)),
    ]
    if provider is not None:
        key = "identity_provider.signing_key"
        attempts.append(Attempt(key, lambda: SigningKey.load(provider.signing_key)))
    return Checks(tuple(attempts))
