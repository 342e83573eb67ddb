"""What `countersign-policy config check` looks at: what a start does with the files."""

from policy.config import PolicySettings
from policy.sources import asking_agencies, documents_of, load, registry_of
from shared.config_check import Attempt, Checks
from shared.identity import SpiffeId
from shared.registry import TrustRoots


def checks(settings: PolicySettings) -> Checks:
    """Of a policy service."""
    trust_roots = settings.trust_roots
    attempts = [Attempt("registry", lambda: registry_of(settings))]
    if trust_roots is not None:
        attempts.append(Attempt("trust_roots", lambda: TrustRoots.load(trust_roots)))
    needs = ("registry", "trust_roots")
    if settings.directives is not None:
        attempts.append(Attempt("directives", lambda: load(settings), needs))
    else:
        attempts.append(Attempt("vocabulary", lambda: documents_of(settings), needs))
    attempts.append(Attempt("authzen", lambda: asking_agencies(settings), ("registry",)))
    return Checks(tuple(attempts), SpiffeId(settings.trust_domain, "service", "policy"))
