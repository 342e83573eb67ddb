"""The development certificate authority."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from countersign.installation.pki import Authority, PkiError, ends_soon
from shared.identity import SpiffeId

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BROKER = SpiffeId("countersign.test", "service", "broker")
AGENCY = SpiffeId("countersign.test", "agency", "CA0194200")


def authority() -> Authority:
    return Authority.create("countersign.test", NOW)


def certificate(identity: SpiffeId, *, listens: bool) -> x509.Certificate:
    issued = authority().issue(identity, NOW, listens=listens)
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def test_a_certificate_holds_exactly_one_spiffe_id() -> None:
    names = certificate(BROKER, listens=True).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(BROKER)]


def test_only_what_listens_names_a_host_and_may_serve() -> None:
    server = certificate(BROKER, listens=True).extensions
    client = certificate(AGENCY, listens=False).extensions
    names = x509.SubjectAlternativeName
    usages = x509.ExtendedKeyUsage
    assert "localhost" in server.get_extension_for_class(names).value.get_values_for_type(
        x509.DNSName
    )
    assert not client.get_extension_for_class(names).value.get_values_for_type(x509.DNSName)
    assert ExtendedKeyUsageOID.SERVER_AUTH in server.get_extension_for_class(usages).value
    assert ExtendedKeyUsageOID.SERVER_AUTH not in client.get_extension_for_class(usages).value


def test_the_authority_may_make_no_further_authority() -> None:
    constraints = authority().certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0
    issued = certificate(BROKER, listens=True).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert not issued.value.ca


def test_another_authority_of_the_same_name_does_not_vouch() -> None:
    ours = authority()
    issued = x509.load_pem_x509_certificate(ours.issue(BROKER, NOW, listens=True).certificate_pem)
    assert ours.vouches_for(issued)
    assert not authority().vouches_for(issued)


def test_a_certificate_is_renewed_a_month_before_its_end() -> None:
    issued = certificate(BROKER, listens=True)
    assert not ends_soon(issued, NOW + timedelta(days=59))
    assert ends_soon(issued, NOW + timedelta(days=61))


def test_a_damaged_authority_is_named(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("not a key")
    with pytest.raises(PkiError, match=r"key\.pem"):
        Authority.load(tmp_path / "certificate.pem", tmp_path / "key.pem")
