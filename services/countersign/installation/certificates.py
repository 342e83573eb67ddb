"""Keeps the certificates of an installation in order: made when missing, renewed before they end."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from countersign.installation.files import write_public, write_secret
from countersign.installation.layout import Layout
from countersign.installation.pki import Authority, PkiError, ends_soon, load_certificate
from shared.identity import SpiffeId

TRUST_DOMAIN: Final = "countersign.test"
"""The reserved top-level domain of RFC 6761: no certificate of it means anything elsewhere."""


def ensure_certificates(
    layout: Layout,
    identities: Mapping[SpiffeId, bool],
    now: datetime,
    trust_domain: str = TRUST_DOMAIN,
) -> None:
    """Sees to it that each identity has a certificate that lasts. True for those that listen.

    Raises PkiError for a damaged authority: a new one in its place would cut off whoever trusts it.
    """
    authority = _ensure_authority(layout, now, trust_domain)
    for identity, listens in identities.items():
        tls = layout.tls(identity)
        if _is_good(layout, identity, authority, now):
            continue
        issued = authority.issue(identity, now, listens=listens)
        write_secret(tls.key, issued.key_pem)
        write_public(tls.certificate, issued.certificate_pem)


def _ensure_authority(layout: Layout, now: datetime, trust_domain: str) -> Authority:
    if layout.authority_key.exists():
        authority = Authority.load(layout.authority, layout.authority_key)
        if not ends_soon(authority.certificate, now):
            return authority
    authority = Authority.create(trust_domain, now)
    # The certificate first: a crash in between leaves no key, so that the next start makes both.
    layout.authority_key.unlink(missing_ok=True)
    write_public(layout.authority, authority.certificate_pem)
    write_secret(layout.authority_key, authority.key_pem())
    return authority


def _is_good(layout: Layout, identity: SpiffeId, authority: Authority, now: datetime) -> bool:
    tls = layout.tls(identity)
    if not (tls.certificate.exists() and tls.key.exists()):
        return False
    try:
        certificate = load_certificate(tls.certificate)
    except PkiError:
        return False
    return authority.vouches_for(certificate) and not ends_soon(certificate, now)
