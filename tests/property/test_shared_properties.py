"""What must hold for any input that the shared library is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.type.v1.search_pb2 import SealedPayload
from shared.binding import bind, request_digest
from shared.errors import FieldViolation, NotAuthentic, ServiceError, from_status, to_status
from shared.identity import SpiffeId
from shared.sealing import PrivateKey, Unopenable, seal
from shared.signing import BadSignature, SigningKey
from support.orders import facts

TEXT = st.text(st.characters(codec="utf-8"), max_size=50)
KINDS = st.sampled_from(sorted(ServiceError.__subclasses__(), key=lambda kind: kind.__name__))
RECIPIENT, SIGNER = PrivateKey.generate(), SigningKey.generate()


@given(
    kind=KINDS,
    reason=st.from_regex(r"[A-Z][A-Z0-9_]{0,30}", fullmatch=True),
    message=TEXT,
    metadata=st.dictionaries(TEXT, TEXT, max_size=5),
    violations=st.lists(st.builds(FieldViolation, TEXT, TEXT), max_size=5),
    retry_after_ms=st.none() | st.integers(0, 10**9),
)
def test_errors_come_back_as_they_were_sent(
    kind: type[ServiceError],
    reason: str,
    message: str,
    metadata: dict[str, str],
    violations: list[FieldViolation],
    retry_after_ms: int | None,
) -> None:
    retry_after_s = None if retry_after_ms is None else retry_after_ms / 1000
    sent = kind(
        reason, message, metadata=metadata, violations=violations, retry_after_s=retry_after_s
    )
    rebuilt = from_status(to_status(sent))
    assert type(rebuilt) is kind
    assert (rebuilt.reason, rebuilt.message, rebuilt.metadata) == (reason, message, metadata)
    assert rebuilt.violations == tuple(violations)
    assert rebuilt.retry_after_s == retry_after_s


@given(data=st.binary(max_size=200), kind=KINDS)
def test_status_of_a_stranger_never_breaks_the_reader(
    data: bytes, kind: type[ServiceError]
) -> None:
    status = to_status(kind("R", "m", violations=[FieldViolation("f", "d")], retry_after_s=1))
    for detail in status.details:
        detail.value = data
    assert isinstance(from_status(status), ServiceError)


@given(st.text())
def test_text_is_an_identity_of_ours_or_not_authentic(uri: str) -> None:
    try:
        identity = SpiffeId.parse(uri)
    except NotAuthentic:
        return
    assert str(identity) == uri


@given(
    domain=st.from_regex(r"[a-z0-9._-]{1,30}", fullmatch=True),
    kind=st.sampled_from(["service", "agency", "connector", "oversight", "operator"]),
    name=st.from_regex(r"[A-Za-z0-9._-]{1,30}", fullmatch=True),
)
def test_identities_survive_their_uri(domain: str, kind: str, name: str) -> None:
    identity = SpiffeId.parse(f"spiffe://{domain}/{kind}/{name}")
    assert (identity.trust_domain, identity.kind, identity.name) == (domain, kind, name)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://countersign.test",
        "spiffe://countersign.test/agency",
        "spiffe://countersign.test/agency/",
        "spiffe://countersign.test/agency/CA0194200/",
        "spiffe://countersign.test/agency/CA0194200\n",
        "spiffe://countersign.test/agency/CA0194200/admin",
        "spiffe://countersign.test/root/CA0194200",
        "spiffe://countersign.test//agency/CA0194200",
        "spiffe://countersign.test:443/agency/CA0194200",
        "spiffe://user@countersign.test/agency/CA0194200",
        "spiffe://countersign.test/agency/CA0194200?x=1",
        "spiffe://countersign.test/agency/%43A0194200",
        "SPIFFE://countersign.test/agency/CA0194200",
        "spiffe://Countersign.test/agency/CA0194200",
        "https://countersign.test/agency/CA0194200",
    ],
)
def test_near_misses_are_no_identity(uri: str) -> None:
    with pytest.raises(NotAuthentic):
        SpiffeId.parse(uri)


@given(plaintext=st.binary(max_size=2000), info=st.binary(max_size=100))
def test_what_was_sealed_opens(plaintext: bytes, info: bytes) -> None:
    assert RECIPIENT.open(seal(RECIPIENT.public_key, plaintext, info), info) == plaintext


@given(plaintext=st.binary(max_size=200), at=st.integers(0), flip=st.integers(1, 255))
def test_any_changed_byte_closes_it(plaintext: bytes, at: int, flip: int) -> None:
    payload = seal(RECIPIENT.public_key, plaintext, b"info")
    changed = bytearray(payload.ciphertext)
    changed[at % len(changed)] ^= flip
    payload.ciphertext = bytes(changed)
    # The top bit of an X25519 coordinate is ignored (RFC 7748), so flipping it alone is no change to
    # the curve; HPKE binds the encapsulated key's bytes, and still refuses.
    with pytest.raises(Unopenable):
        RECIPIENT.open(payload, b"info")


@given(info=st.binary(max_size=50), other=st.binary(max_size=50))
def test_it_opens_for_its_own_purpose_only(info: bytes, other: bytes) -> None:
    payload = seal(RECIPIENT.public_key, b"a probe", info)
    if other != info:
        with pytest.raises(Unopenable):
            RECIPIENT.open(payload, other)


@given(ciphertext=st.binary(max_size=200))
def test_bytes_of_a_stranger_do_not_open(ciphertext: bytes) -> None:
    payload = SealedPayload(kem_id=0x20, kdf_id=1, aead_id=2, ciphertext=ciphertext)
    with pytest.raises(Unopenable):
        RECIPIENT.open(payload, b"")


@given(data=st.binary(max_size=200), signature=st.binary(max_size=80), context=TEXT)
def test_bytes_of_a_stranger_do_not_verify(data: bytes, signature: bytes, context: str) -> None:
    with pytest.raises(BadSignature):
        SIGNER.verify_key.verify(context, data, signature)


@given(officer=TEXT, other=TEXT, salt=st.binary(min_size=32, max_size=32))
def test_officer_cannot_be_exchanged_under_a_digest(officer: str, other: str, salt: bytes) -> None:
    probe = SealedPayload(ciphertext=b"c" * 48)
    digests = {
        request_digest(bind(facts(), who, probe, b"k" * 32, salt)) for who in (officer, other)
    }
    assert len(digests) == len({officer, other})
