"""What a policy service decides by, and its settings on a NATS server under test."""

from directive.book import Book
from directive.evaluate import Evaluator
from policy.applied import Applied, Current
from policy.config import PolicySettings
from shared.registry import Registry
from shared.settings import ListenSettings
from support.directives import DIRECTIVES, registry
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest


def current(book: Book, known: Registry | None = None) -> Current:
    """As of directives that are files."""
    known = known or registry()
    applied = Applied(book, Evaluator(book, known), known)
    return lambda: applied


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
