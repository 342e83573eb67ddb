"""What `countersign-broker config check` looks at: what a start does with the files."""

from broker import peering
from broker.config import BrokerSettings
from shared.config_check import Attempt, Checks
from shared.identity import SpiffeId
from shared.registry import Registry, TrustRoots
from shared.signing import SigningKey


def checks(settings: BrokerSettings) -> Checks:
    """Of a broker."""
    registry = settings.registry

    def peers() -> None:
        peering.check(settings, TrustRoots.load(settings.trust_roots))

    attempts = [
        Attempt("trust_roots", lambda: TrustRoots.load(settings.trust_roots)),
        Attempt("order_signing_key", lambda: SigningKey.load(settings.order_signing_key)),
        Attempt("peers", peers, ("trust_roots",)),
    ]
    if registry is not None:
        attempts.append(Attempt("registry", lambda: Registry.load(registry)))
    return Checks(tuple(attempts), SpiffeId(settings.trust_domain, "service", "broker"))
