"""An officer token is believed only if all of it is right."""

import base64
import hashlib
import hmac
import json
import re
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from countersign.installation.identity_provider import DevelopmentIdentityProvider
from shared.errors import NotAllowed, NotAuthentic, ServiceError
from shared.registry import (
    Agency,
    IdentityProvider,
    Officer,
    Registry,
    RegistryError,
    TrustRoots,
)
from shared.signing import SigningKey
from shared.tokens import AUDIENCE, CLOCK_SKEW_MAX, LEDGER_AUDIENCE, LIFETIME_MAX, OfficerTokens
from support.clocks import NOON, ClockThatStandsStill

LAPD, BURBANK = "CA0194200", "CA0191200"
SEARCH = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10"
ISSUER = "https://id.lapd.test"
OFFICER = "lapd-40123"

EDWARDS = Ed25519PrivateKey.generate()
ELLIPTIC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    """The public half."""
    algorithm = "EdDSA" if isinstance(key, Ed25519PrivateKey) else "ES256"
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "alg": algorithm}


def provider(issuer: str, *keys: dict[str, Any]) -> IdentityProvider:
    return IdentityProvider(issuer=issuer, jwks={"keys": list(keys)})


def roots(providers: dict[str, IdentityProvider]) -> TrustRoots:
    return TrustRoots(
        log_verifier_keys=("not used here",),
        broker_verify_keys=(bytes(32),),
        identity_providers=providers,
    )


REGISTRY = Registry(
    agencies={
        LAPD: Agency(name="Los Angeles Police Department", jurisdiction="US-CA"),
        BURBANK: Agency(name="Burbank Police Department", jurisdiction="US-CA"),
    },
    officers={
        OFFICER: Officer(agency=LAPD, active=True),
        "burbank-117": Officer(agency=BURBANK, active=True),
    },
)
TRUST = roots(
    {
        LAPD: provider(ISSUER, jwk(EDWARDS, "edwards"), jwk(ELLIPTIC, "elliptic")),
        BURBANK: provider("https://id.burbank.test", jwk(Ed25519PrivateKey.generate(), "burbank")),
    }
)


@pytest.fixture
def clock() -> ClockThatStandsStill:
    return ClockThatStandsStill()


@pytest.fixture
def tokens(clock: ClockThatStandsStill) -> OfficerTokens:
    return OfficerTokens(REGISTRY, TRUST, clock)


def claims(**changes: Any) -> dict[str, Any]:
    """What a sound token says; None leaves a claim out."""
    now = int(NOON.timestamp())
    sound = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": OFFICER,
        "iat": now,
        "exp": now + 300,
        "nonce": SEARCH,
    }
    return {name: value for name, value in (sound | changes).items() if value is not None}


def signed(key: Any = EDWARDS, kid: str = "edwards", alg: str = "EdDSA", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=alg, headers={"kid": kid})


def refusal(tokens: OfficerTokens, token: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        tokens.verify(token, LAPD, SEARCH)
    assert not token or token not in str(caught.value)
    return caught.value


def test_token_of_the_origin_agencys_provider_names_the_officer(tokens: OfficerTokens) -> None:
    assert tokens.verify(signed(), LAPD, SEARCH) == OFFICER


def test_es256_is_accepted(tokens: OfficerTokens) -> None:
    assert tokens.verify(signed(ELLIPTIC, "elliptic", "ES256"), LAPD, SEARCH) == OFFICER


def test_development_provider_makes_acceptable_tokens(clock: ClockThatStandsStill) -> None:
    development = DevelopmentIdentityProvider(ISSUER, SigningKey.generate(), clock)
    registered = IdentityProvider.model_validate(development.registration())
    tokens = OfficerTokens(REGISTRY, roots({LAPD: registered}), clock)
    assert tokens.verify(development.token(OFFICER, SEARCH), LAPD, SEARCH) == OFFICER


def test_officer_whom_the_registry_does_not_know_is_left_to_the_directives(
    tokens: OfficerTokens,
) -> None:
    assert tokens.verify(signed(sub="lapd-00000"), LAPD, SEARCH) == "lapd-00000"


def test_expired(tokens: OfficerTokens, clock: ClockThatStandsStill) -> None:
    token = signed()
    clock.advance(seconds=300 + CLOCK_SKEW_MAX.total_seconds() - 1)
    assert tokens.verify(token, LAPD, SEARCH) == OFFICER
    clock.advance(seconds=1)
    refused = refusal(tokens, token)
    assert (type(refused), refused.reason) == (NotAuthentic, "OFFICER_TOKEN_EXPIRED")


def test_unbound(tokens: OfficerTokens) -> None:
    refused = refusal(tokens, signed(nonce="7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11"))
    assert (type(refused), refused.reason) == (NotAuthentic, "OFFICER_TOKEN_UNBOUND")


def test_key_of_another_agency(tokens: OfficerTokens) -> None:
    refused = refusal(tokens, signed(Ed25519PrivateKey.generate(), "burbank"))
    assert (type(refused), refused.reason) == (NotAuthentic, "OFFICER_TOKEN_FOREIGN")


def test_own_provider_vouching_for_another_agencys_officer(tokens: OfficerTokens) -> None:
    refused = refusal(tokens, signed(sub="burbank-117"))
    assert (type(refused), refused.reason) == (NotAllowed, "OFFICER_TOKEN_FOREIGN")


def test_agency_without_a_provider(tokens: OfficerTokens) -> None:
    with pytest.raises(NotAuthentic) as caught:
        tokens.verify(signed(), "CA0190000", SEARCH)
    assert caught.value.reason == "IDENTITY_PROVIDER_UNKNOWN"


NOW = int(NOON.timestamp())
SKEW = int(CLOCK_SKEW_MAX.total_seconds())


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://id.burbank.test"},
        {"iss": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "Jane Doe"},
        {"sub": "lapd-40123\n"},
        {"sub": "\ud800"},
        {"nonce": None},
        {"iat": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": 2**60},
        {"exp": float("nan")},
        {"iat": -1},
        {"nbf": "yesterday"},
        {"iat": NOW + SKEW + 1, "exp": NOW + 300},
        {"nbf": NOW + SKEW + 1},
        {"exp": NOW + int(LIFETIME_MAX.total_seconds()) + 1},
        {"iat": NOW - int(LIFETIME_MAX.total_seconds()), "exp": NOW + 1},
    ],
    ids=str,
)
def test_claims_that_are_not_acceptable(tokens: OfficerTokens, changes: dict[str, Any]) -> None:
    refused = refusal(tokens, signed(**changes))
    assert (type(refused), refused.reason) == (NotAuthentic, "OFFICER_TOKEN_INVALID")


def test_whoever_sets_up_a_provider_is_told_what_is_wrong(tokens: OfficerTokens) -> None:
    for token, said in (
        (signed(nonce=None), "it lacks the claim nonce"),
        (signed(iss="https://id.burbank.test"), "its issuer (iss) is not the one"),
        (signed(Ed25519PrivateKey.generate()), "its signature is false"),
        (signed(ELLIPTIC, "edwards", "ES256"), "another algorithm than its key is for"),
        ("an access token that is no JWT", "no JWT whose header names a key (kid)"),
    ):
        assert said in refusal(tokens, token).message


def test_longest_life_and_widest_skew_are_accepted(tokens: OfficerTokens) -> None:
    longest = signed(exp=NOW + int(LIFETIME_MAX.total_seconds()))
    assert tokens.verify(longest, LAPD, SEARCH) == OFFICER
    assert tokens.verify(signed(iat=NOW + SKEW, nbf=NOW + SKEW), LAPD, SEARCH) == OFFICER


def _encoded(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _with_header(header: Any, signature: bytes = bytes(64)) -> str:
    return f"{_encoded(header)}.{_encoded(claims())}.{_encoded(signature)}"


def _hs256_with_the_public_key(key: bytes) -> str:
    head = f"{_encoded({'alg': 'HS256', 'kid': 'edwards'})}.{_encoded(claims())}"
    return f"{head}.{_encoded(hmac.digest(key, head.encode(), hashlib.sha256))}"


def _public_pem() -> bytes:
    return EDWARDS.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _tampered() -> str:
    header, _, signature = signed().split(".")
    return f"{header}.{_encoded(claims(sub='lapd-40777'))}.{signature}"


FORGERIES = {
    "no algorithm": _with_header({"alg": "none", "kid": "edwards"}),
    "no algorithm or signature": _with_header({"alg": "none", "kid": "edwards"}, b""),
    "HS256 with the raw public key": _hs256_with_the_public_key(
        EDWARDS.public_key().public_bytes_raw()
    ),
    "HS256 with the public key's PEM": _hs256_with_the_public_key(_public_pem()),
    "another payload under the signature": _tampered(),
    "an unknown key under a known name": signed(Ed25519PrivateKey.generate()),
    "a key under another's name": signed(ELLIPTIC, "edwards", "ES256"),
    "another algorithm than the key's": signed(EDWARDS, "elliptic", "EdDSA"),
    "cut off": signed()[:-6],
    "a part too many": signed() + ".x",
    "nothing": "",
    "dots": "..",
    "no base64": "a.b.c",
    "no ASCII": "\N{SNOWMAN}.b.c",
    "a key name that is no text": _with_header({"alg": "EdDSA", "kid": 7}),
    "an extension that we do not know": _with_header(
        {"alg": "EdDSA", "kid": "edwards", "crit": ["b64"], "b64": False}
    ),
    "a header that is no object": _with_header([]),
    "a header that is no text": _with_header(b"\xff"),
    "a header nested too deeply": _with_header(b"[" * 6000),
    "a header with an immense number": _with_header(
        b'{"kid":"edwards","alg":' + b"9" * 6000 + b"}"
    ),
}


@pytest.mark.parametrize("token", FORGERIES.values(), ids=FORGERIES.keys())
def test_tokens_that_are_forged_or_malformed(tokens: OfficerTokens, token: str) -> None:
    refused = refusal(tokens, token)
    assert (type(refused), refused.reason) == (NotAuthentic, "OFFICER_TOKEN_INVALID")


def test_rsa_key_in_the_set_is_not_used(clock: ClockThatStandsStill) -> None:
    key = rsa.generate_private_key(65537, 2048)
    public = jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key(), as_dict=True)
    trust = roots({LAPD: provider(ISSUER, {**public, "kid": "rsa"}, jwk(EDWARDS, "edwards"))})
    tokens = OfficerTokens(REGISTRY, trust, clock)
    refused = refusal(tokens, signed(key, "rsa", "RS256"))
    assert refused.reason == "OFFICER_TOKEN_FOREIGN"


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": []},
        {"keys": "none"},
        {"keys": ["none"]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "alg": ["ES256"], "kid": "1"}]},
        {"keys": [{name: v for name, v in jwk(EDWARDS, "x").items() if name != "kid"}]},
    ],
)
def test_key_set_that_can_sign_nothing_stops_the_start(
    jwks: dict[str, Any], clock: ClockThatStandsStill
) -> None:
    trust = roots({LAPD: IdentityProvider(issuer=ISSUER, jwks=jwks)})
    with pytest.raises(RegistryError, match=LAPD):
        OfficerTokens(REGISTRY, trust, clock)


def test_lifetime_is_short() -> None:
    assert timedelta(hours=1) >= LIFETIME_MAX


def outcome(tokens: OfficerTokens, token: str) -> str:
    try:
        return tokens.verify(token, LAPD, SEARCH)
    except ServiceError as error:
        return f"{type(error).__name__} {error.reason}"


CHANGED = {
    "spare bits in a part": signed()[:-1] + chr(ord(signed()[-1]) + 1),
    "padding": signed() + "==",
    "another alphabet": signed().replace("-", "+").replace("_", "/"),
    "white space": signed() + "\n",
    "several audiences": signed(aud=[AUDIENCE, "another"]),
    "an identifier": signed(jti="1"),
    "an identifier that is no text": signed(jti=1),
    "a subject that is no text": signed(sub=7),
    "an issuer that is no text": jwt.PyJWS().encode(
        json.dumps(claims(iss=[ISSUER])).encode(),
        EDWARDS,
        algorithm="EdDSA",
        headers={"kid": "edwards"},
    ),
    "a critical extension": jwt.encode(
        claims(), EDWARDS, algorithm="EdDSA", headers={"kid": "edwards", "crit": ["x"]}
    ),
    "the other algorithm": signed(ELLIPTIC, "elliptic", "ES256"),
    "claims that are no object": jwt.PyJWS().encode(
        b"[]", EDWARDS, algorithm="EdDSA", headers={"kid": "edwards"}
    ),
    "claims nested too deeply": jwt.PyJWS().encode(
        b"[" * 6000, EDWARDS, algorithm="EdDSA", headers={"kid": "edwards"}
    ),
}


@pytest.mark.parametrize("token", [signed(), *CHANGED.values(), *FORGERIES.values()])
def test_ordinary_tokens_are_judged_as_pyjwt_would(
    tokens: OfficerTokens, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = outcome(tokens, token)
    monkeypatch.setattr("shared.tokens._ORDINARY", re.compile("(?!)"))
    assert outcome(tokens, token) == ours


def test_an_ordinary_token_is_not_read_twice(
    tokens: OfficerTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(jwt, "decode")
    assert tokens.verify(signed(), LAPD, SEARCH) == OFFICER


def test_token_for_the_broker_is_none_for_the_ledger_and_the_other_way_round(
    clock: ClockThatStandsStill,
) -> None:
    """Both ways of reading a token: the quick one for Ed25519, and PyJWT's."""
    at = {
        AUDIENCE: OfficerTokens(REGISTRY, TRUST, clock),
        LEDGER_AUDIENCE: OfficerTokens(REGISTRY, TRUST, clock, LEDGER_AUDIENCE),
    }
    for audience, other in ((AUDIENCE, LEDGER_AUDIENCE), (LEDGER_AUDIENCE, AUDIENCE)):
        for token in (signed(aud=audience), signed(ELLIPTIC, "elliptic", "ES256", aud=audience)):
            assert at[audience].verify(token, LAPD, SEARCH) == OFFICER
            refused = refusal(at[other], token)
            assert refused.reason == "OFFICER_TOKEN_INVALID"
            assert f"it must be for the audience {other}" in str(refused)


@pytest.mark.parametrize("alg", ["EdDSA", "ES256"])
def test_keys_roll_over_with_both_in_the_set_and_the_old_one_taken_out(
    clock: ClockThatStandsStill, alg: str
) -> None:
    """The registered set is what counts, whenever the token was issued."""
    make = Ed25519PrivateKey.generate
    old, new = (
        (make(), make()) if alg == "EdDSA" else (ELLIPTIC, ec.generate_private_key(ec.SECP256R1()))
    )
    of_old, of_new = jwk(old, "2025"), jwk(new, "2026")

    def accepts(*keys: dict[str, Any]) -> list[bool]:
        tokens = OfficerTokens(REGISTRY, roots({LAPD: provider(ISSUER, *keys)}), clock)
        shown = (signed(old, "2025", alg), signed(new, "2026", alg))
        return [outcome(tokens, token) == OFFICER for token in shown]

    assert accepts(of_old) == [True, False]
    assert accepts(of_old, of_new) == [True, True]
    assert accepts(of_new) == [False, True]
    # Neither may sign under the other's name.
    tokens = OfficerTokens(REGISTRY, roots({LAPD: provider(ISSUER, of_old, of_new)}), clock)
    assert "NotAuthentic" in outcome(tokens, signed(old, "2026", alg))
