"""Certificates that lapse: how long they last is known, and said in time."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.metrics import CallbackOptions

from broker.config import BrokerSettings, PeerSettings
from shared.expiry import WARN_BEFORE, Expiry, certificates_in
from shared.settings import BusSettings, ListenSettings, TlsFiles
from support.clocks import ClockThatStandsStill
from support.doors import TRUST_DOMAIN, Pki

LIFETIME_DAYS = 90


@pytest.fixture(name="own")
def _own(pki: Pki) -> TlsFiles:
    return pki.issue("service", "broker")


def watching(own: TlsFiles, pki: Pki, days_left: float) -> Expiry:
    clock = ClockThatStandsStill(pki.now + timedelta(days=LIFETIME_DAYS - days_left))
    return Expiry({"bus": own}, clock)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


@pytest.mark.parametrize(
    ("days_left", "expected"),
    [
        (WARN_BEFORE.days + 1, []),
        (WARN_BEFORE.days - 1, [(logging.WARNING, "certificate lapses soon")]),
        (-1, [(logging.ERROR, "certificate has lapsed")]),
    ],
)
def test_a_certificate_that_lapses_soon_is_told_of(
    own: TlsFiles,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    days_left: int,
    expected: list[tuple[int, str]],
) -> None:
    watching(own, pki, days_left).warn()
    assert said(caplog) == expected


def test_the_days_that_are_left_are_a_metric(own: TlsFiles, pki: Pki) -> None:
    (point,) = watching(own, pki, 30).measure(CallbackOptions())
    assert point.value == pytest.approx(30, abs=0.1)
    assert dict(point.attributes or {}) == {"role": "bus"}


def test_certificates_for_each_peer_are_watched_too(own: TlsFiles) -> None:
    settings = BrokerSettings.model_construct(peers={"east.test": PeerSettings(tls=own)})
    assert certificates_in(settings)["peers.east.test"] == own


def test_a_renewed_certificate_is_seen_without_a_restart(own: TlsFiles, pki: Pki) -> None:
    expiry = watching(own, pki, 1)
    ((_, before),) = expiry.left()
    pki.now += timedelta(days=60)
    pki.issue("service", "broker")  # over the same files
    ((_, after),) = expiry.left()
    assert after - before == timedelta(days=60)


def test_the_first_of_a_chain_to_lapse_counts(own: TlsFiles, pki: Pki) -> None:
    expiry = watching(own, pki, 30)
    ((_, before),) = expiry.left()
    leaf = own.certificate.read_bytes()
    own.certificate.write_bytes(pki.authority.certificate_pem + leaf)
    ((_, after),) = expiry.left()
    assert after == before


def test_a_file_that_cannot_be_read_is_told_of_and_stops_nothing(
    own: TlsFiles, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    own.certificate.write_bytes(b"half-writ")
    assert not list(watching(own, pki, 30).left())
    assert said(caplog) == [(logging.WARNING, "certificate cannot be read")]


def test_every_certificate_of_a_configuration_is_found(own: TlsFiles, tmp_path: Path) -> None:
    settings = BrokerSettings(
        trust_domain=TRUST_DOMAIN,
        listen=ListenSettings(address="127.0.0.1:0", tls=own),
        bus=BusSettings(servers=("tls://127.0.0.1:1",), tls=own),
        registry=tmp_path / "registry.toml",
        trust_roots=tmp_path / "trust-roots.json",
        order_signing_key=tmp_path / "key.pem",
    )
    assert certificates_in(settings) == {"listen": own, "bus": own}
