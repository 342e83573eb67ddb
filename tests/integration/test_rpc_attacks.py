"""Certificates and headers that somebody would get in with: stopped at the door, on a real server."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from countersign.installation.files import write_public, write_secret
from countersign.installation.pki import Authority
from shared.errors import NotAuthentic, Unavailable
from shared.settings import TlsFiles
from support.doors import (
    LAPD,
    SERVICE,
    TIMEOUT_S,
    TRUST_DOMAIN,
    Channels,
    Pki,
    ServicerThatIsTold,
    check,
    refusal,
)

OURS: Final = f"spiffe://{TRUST_DOMAIN}/agency/{LAPD}"


def certificate(pki: Pki, names: list[str], start: datetime, end: datetime) -> TlsFiles:
    """Of our authority, with these names and times."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.load_pem_x509_certificate(pki.authority.certificate_pem)
    authority_key = serialization.load_pem_private_key(pki.authority.key_pem(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    uris = [x509.UniformResourceIdentifier(name) for name in names]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, OURS)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([*uris, x509.DNSName(LAPD)]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    tls = TlsFiles(
        certificate=pki.folder / "attack.pem",
        key=pki.folder / "attack-key.pem",
        authority=pki.folder / "authority.pem",
    )
    write_public(tls.certificate, made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_secret(tls.key, key.private_bytes(encoding, form, serialization.NoEncryption()))
    return tls


def day(pki: Pki, number: int) -> datetime:
    return pki.now + timedelta(days=number)


ATTACKS: Final[dict[str, tuple[Callable[[Pki], TlsFiles], type[Exception]]]] = {
    "lapsed": (lambda pki: certificate(pki, [OURS], day(pki, -9), day(pki, -1)), Unavailable),
    "not yet valid": (lambda pki: certificate(pki, [OURS], day(pki, 1), day(pki, 9)), Unavailable),
    "no SPIFFE ID": (lambda pki: certificate(pki, [], day(pki, -1), day(pki, 9)), NotAuthentic),
    "a web address": (
        lambda pki: certificate(pki, [f"https://{LAPD}"], day(pki, -1), day(pki, 9)),
        NotAuthentic,
    ),
    "two SPIFFE IDs": (
        lambda pki: certificate(pki, [OURS, OURS + "1"], day(pki, -1), day(pki, 9)),
        NotAuthentic,
    ),
    "a path below ours": (
        lambda pki: certificate(pki, [OURS + "/admin"], day(pki, -1), day(pki, 9)),
        NotAuthentic,
    ),
    "another authority of our name": (
        lambda pki: pki.issue("agency", LAPD, authority=Authority.create(TRUST_DOMAIN, pki.now)),
        Unavailable,
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_certificate_that_is_not_acceptable_is_nobodys(
    pki: Pki, channels: Channels, servicer: ServicerThatIsTold, attack: str
) -> None:
    make, expected = ATTACKS[attack]
    assert type(await refusal(channels(make(pki)))) is expected
    assert not servicer.callers


async def test_what_was_stitched_is_let_in_when_it_is_right(
    pki: Pki, channels: Channels, servicer: ServicerThatIsTold
) -> None:
    """Else the attacks above might fail for another reason."""
    await check(channels(certificate(pki, [OURS], day(pki, -1), day(pki, 9))))
    assert [str(one) for one in servicer.callers] == [OURS]


@pytest.mark.parametrize("size", [20_000, 200_000])
async def test_headers_beyond_reason_are_refused(
    lapd: grpc.aio.Channel, servicer: ServicerThatIsTold, size: int
) -> None:
    call: Any = lapd.unary_unary(f"/{SERVICE}/CheckSearch")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=(("x-long", "x" * size),), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not servicer.callers
