"""Who gets as far as the gRPC door: certificates, and their renewal while the server runs."""

import asyncio
import contextlib
import ssl

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import BrokerServiceStub
from countersign.installation.files import write_public, write_secret
from countersign.installation.pki import Authority
from shared import rpc
from shared.errors import NotAllowed, Unavailable
from shared.settings import ListenSettings, SettingsError, TlsFiles
from support.doors import (
    LAPD,
    LASD,
    SEARCH,
    TIMEOUT_S,
    TRUST_DOMAIN,
    Channels,
    Pki,
    ServicerThatIsTold,
    check,
    refusal,
)
from support.waiting import until


async def test_caller_without_a_certificate_is_not_let_in(
    pki: Pki, server: rpc.RunningServer, servicer: ServicerThatIsTold
) -> None:
    credentials = grpc.ssl_channel_credentials((pki.folder / "authority.pem").read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
        assert isinstance(await refusal(channel), Unavailable)
    assert not servicer.callers


async def test_caller_of_another_authority_is_not_let_in(
    pki: Pki, channels: Channels, servicer: ServicerThatIsTold
) -> None:
    others = Authority.create(TRUST_DOMAIN, pki.now)
    channel = channels(pki.issue("agency", LAPD, authority=others))
    assert isinstance(await refusal(channel), Unavailable)
    assert not servicer.callers


def _two_names(pki: Pki, authority: Authority) -> TlsFiles:
    """A certificate with two SPIFFE IDs, which X.509-SVID forbids, made by stitching."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/agency/{name}")
        for name in (LAPD, LASD)
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(authority.certificate.not_valid_before_utc)
        .not_valid_after(authority.certificate.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority._key, hashes.SHA256())
    )
    tls = TlsFiles(
        certificate=pki.folder / "two.pem",
        key=pki.folder / "two-key.pem",
        authority=pki.folder / "authority.pem",
    )
    write_public(tls.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    write_secret(
        tls.key,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return tls


async def test_caller_with_two_names_is_nobody(
    pki: Pki, channels: Channels, servicer: ServicerThatIsTold
) -> None:
    refused = await refusal(channels(_two_names(pki, pki.authority)))
    assert refused.reason == "IDENTITY_UNKNOWN"
    assert not servicer.callers


def _serial(pki: Pki, tls: TlsFiles) -> int:
    return x509.load_pem_x509_certificate(tls.certificate.read_bytes()).serial_number


async def _served_serial(pki: Pki, port: int, client: TlsFiles) -> int:
    """What a new connection is shown."""
    context = ssl.create_default_context(cafile=str(client.authority))
    context.load_cert_chain(client.certificate, client.key)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_renewed_certificate_is_shown_to_new_connections_without_a_restart(
    pki: Pki, server: rpc.RunningServer, lapd: grpc.aio.Channel
) -> None:
    await check(lapd)
    client = pki.issue("agency", LAPD)
    tls = pki.issue("service", "broker", listens=True)
    renewed = _serial(pki, tls)

    async def shown() -> bool:
        return await _served_serial(pki, server.port, client) == renewed

    assert await until(shown)
    await check(lapd)  # the old connection stands


async def test_half_written_certificate_leaves_the_old_one_in_use(
    pki: Pki, server: rpc.RunningServer, channels: Channels
) -> None:
    tls = pki.issue("service", "broker", listens=True)
    client = pki.issue("agency", LAPD)
    old = await _served_serial(pki, server.port, client)
    content = tls.certificate.read_bytes()
    tls.certificate.write_bytes(content[: len(content) // 2])
    assert await _served_serial(pki, server.port, client) == old
    tls.key.unlink()
    assert await _served_serial(pki, server.port, client) == old
    await check(channels(client))


async def test_key_of_another_certificate_leaves_the_old_pair_in_use_and_is_told(
    pki: Pki, server: rpc.RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    tls = pki.issue("service", "broker", listens=True)
    client = pki.issue("agency", LAPD)
    old, old_key = await _served_serial(pki, server.port, client), tls.key.read_bytes()
    pki.issue("service", "broker", listens=True)
    tls.key.write_bytes(old_key)
    for _ in range(2):
        assert await _served_serial(pki, server.port, client) == old
    (said,) = [record for record in caplog.records if record.name == "shared.tls"]
    assert said.levelname == "WARNING"


async def test_address_that_is_taken_and_files_that_are_missing_are_named(
    pki: Pki, server: rpc.RunningServer
) -> None:
    tls = pki.issue("service", "broker", listens=True)

    async def start(listen: ListenSettings) -> None:
        await rpc.start_server(
            lambda _: None, services=[], listen=listen, trust_domain=TRUST_DOMAIN, access={}
        )

    with pytest.raises(SettingsError, match=str(server.port)):
        await start(ListenSettings(address=f"127.0.0.1:{server.port}", tls=tls))
    tls.key.unlink()
    with pytest.raises(SettingsError, match=tls.key.name):
        await start(ListenSettings(address="127.0.0.1:0", tls=tls))


async def test_a_client_shows_its_renewed_certificate_from_the_next_call_on(
    pki: Pki, channels: Channels, servicer: ServicerThatIsTold
) -> None:
    files = pki.issue("agency", LAPD, file="client")
    channel = channels(files)
    await check(channel)
    servicer.go_on.clear()
    watching = rpc.call_stream(
        BrokerServiceStub(channel).WatchSearch,
        pb.WatchSearchRequest(search_id=SEARCH),
        name="WatchSearch",
        timeout_s=TIMEOUT_S,
    )
    assert (await anext(watching)).search.state == pb.SEARCH_STATE_PENDING
    # Somebody else's, so that the server can tell them apart.
    pki.issue("agency", LASD, file="client")
    assert isinstance(await refusal(channel), NotAllowed)
    # What was under way goes on where it was.
    servicer.go_on.set()
    assert [one.search.state async for one in watching] == [pb.SEARCH_STATE_ANSWERED]
    pki.issue("agency", LAPD, file="client")
    await check(channel)


async def test_a_client_whose_new_certificate_is_half_written_shows_the_old_one(
    pki: Pki, channels: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    files = pki.issue("agency", LAPD, file="client")
    channel = channels(files)
    await check(channel)
    old_key = files.key.read_bytes()
    pki.issue("agency", LAPD, file="client")
    new_key = files.key.read_bytes()
    for half in (old_key, new_key[:50], b""):
        files.key.write_bytes(half)
        caplog.clear()
        for _ in range(2):
            await check(channel)
        # Once, though each call looks.
        (said,) = [record for record in caplog.records if record.name == "shared.tls"]
        assert said.levelname == "WARNING"
    files.key.unlink()
    await check(channel)
    files.key.write_bytes(new_key)
    await check(channel)
