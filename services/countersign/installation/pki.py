"""The development certificate authority.

Issues each process and agency system a certificate with exactly one SPIFFE ID in its URI SAN
(X.509-SVID, sections 2 to 4), and a name and address of the loopback interface for those that are
connected to. ECDSA on P-256, because every TLS stack in use here has it.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.identity import SpiffeId

AUTHORITY_LIFETIME: Final = timedelta(days=730)
CERTIFICATE_LIFETIME: Final = timedelta(days=90)
RENEW_BEFORE: Final = timedelta(days=30)
"""`countersign up` renews what ends sooner than this, so that an installation may run for a month."""
BACKDATED: Final = timedelta(minutes=5)
"""Other machines' clocks may be behind ours by as much."""

HOSTS: Final = ("localhost",)
ADDRESSES: Final = ("127.0.0.1", "::1")


class PkiError(Exception):
    """A certificate or its key cannot be read; the message names the file."""


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, as PEM. The key is secret and not encrypted."""

    certificate_pem: bytes
    key_pem: bytes


class Authority:
    """A certificate authority that vouches for one trust domain."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(cls, trust_domain: str, now: datetime) -> "Authority":
        """A new authority, which may issue end certificates and no further authorities."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Countersign development"),
                x509.NameAttribute(NameOID.COMMON_NAME, trust_domain),
            ]
        )
        certificate = (
            _builder(name, name, key, now, AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "Authority":
        """Reads both files; raises PkiError."""
        try:
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise PkiError(f"cannot read the authority's key from {key}: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise PkiError(f"the key in {key} is not an elliptic-curve key")
        return cls(load_certificate(certificate), private)

    @property
    def certificate_pem(self) -> bytes:
        """The authority's own certificate: what others check ours against."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """The authority's private key: whoever has it can pass for anybody."""
        return _private_pem(self._key)

    def issue(
        self,
        identity: SpiffeId,
        now: datetime,
        *,
        listens: bool,
        hosts: Sequence[str] = HOSTS,
    ) -> Issued:
        """A certificate with a new key. Only one that `listens` names hosts and may serve."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if listens:
            names += [x509.DNSName(host) for host in hosts]
            names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            _builder(_subject(identity), self.certificate.subject, key, now, CERTIFICATE_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))

    def vouches_for(self, certificate: x509.Certificate) -> bool:
        """True when this authority signed the certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def request(identity: SpiffeId, hosts: Sequence[str]) -> Issued:
    """A new key, and what an authority is asked to sign for it, in the place of the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
    names += [host_name(one) for one in (*HOSTS, *ADDRESSES, *hosts)]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(identity))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(asked.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def host_name(name: str) -> x509.GeneralName:
    """An address or a name, as a certificate has it; raises ValueError for what is neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subject(identity: SpiffeId) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"{identity.kind} {identity.name}"[:64])]
    )


def load_certificate(path: Path) -> x509.Certificate:
    """Reads a PEM certificate; raises PkiError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PkiError(f"cannot read a certificate from {path}: {error}") from error


def ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    """True when the certificate must be renewed."""
    return certificate.not_valid_after_utc - now < RENEW_BEFORE


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
