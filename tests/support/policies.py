"""A policy service on a NATS server under test."""

from policy.config import PolicySettings
from shared.settings import ListenSettings
from support.directives import DIRECTIVES
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest


def policy_settings(nats: NatsUnderTest) -> PolicySettings:
    """The demonstration's directives, any free port."""
    bus = nats.bus_settings("service", "policy")
    # Made last: a certificate for one identity replaces the one before.
    tls = nats.certificates.tls("service", "policy", listens=True)
    return PolicySettings(
        trust_domain=TRUST_DOMAIN,
        listen=ListenSettings(address="127.0.0.1:0", tls=tls),
        bus=bus.model_copy(update={"tls": tls}),
        registry=DIRECTIVES / "demo-registry.toml",
        directives=DIRECTIVES,
    )
