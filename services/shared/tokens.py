"""Officer tokens: the origin agency's identity provider vouches for the natural person who asks.

A token is a JWT (RFC 7519) signed with EdDSA or ES256 by a key of the JWKS that the agency
registered. `iss` is the agency's issuer, `aud` names the broker, `sub` is the officer, `exp` and `iat`
bound its life, and `nonce` (OpenID Connect Core, section 2) is the search id, so that a token serves
one search only.
"""

import copy
import functools
import json
import logging
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import jwt
import nacl.exceptions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.utils import base64url_decode
from nacl.bindings import crypto_sign_open

from shared.clock import Clock
from shared.errors import NotAllowed, NotAuthentic
from shared.registry import OFFICER_PATTERN, IdentityProvider, Registry, RegistryError, TrustRoots

log = logging.getLogger(__name__)

AUDIENCE: Final = "countersign-broker"
LEDGER_AUDIENCE: Final = "countersign-ledger"
"""For what is asked of the ledger itself; its `nonce` is the request's id."""
ALGORITHMS: Final = ("EdDSA", "ES256")
LIFETIME_MAX: Final = timedelta(minutes=15)
"""A longer-lived token could be taken from one officer's desk and used by another."""
CLOCK_SKEW_MAX: Final = timedelta(seconds=30)
"""How far the identity provider's clock may be from ours."""
_REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat", "nonce")
_OFFICER: Final = re.compile(OFFICER_PATTERN)
_LIFETIME_MAX_S: Final = LIFETIME_MAX.total_seconds()
_SKEW_S: Final = CLOCK_SKEW_MAX.total_seconds()
_ORDINARY: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_WORDS: Final[Mapping[type[Exception], str]] = {
    jwt.InvalidTokenError: "it is no JWT whose header names a key (kid)",
    jwt.DecodeError: "it cannot be read as a JWT",
    jwt.InvalidSignatureError: "its signature is false",
    jwt.InvalidAlgorithmError: "it is signed by another algorithm than its key is for",
    jwt.InvalidIssuerError: "its issuer (iss) is not the one that the agency registered",
}
"""Failures by their kind."""
_HEADERS_AT_HAND: Final = 256
"""One for each provider's key; of strangers' headers only as many as fit."""
_ORDINARY_HEADER: Final = frozenset({"alg", "kid", "typ"})
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True)
class _Key:
    """A provider's key."""

    jwk: jwt.PyJWK
    ed25519: bytes | None
    """The same, raw, when it is one."""


@dataclass(frozen=True)
class _Provider:
    """An agency's provider with its keys, ready to be used."""

    registered: IdentityProvider
    keys: dict[str, _Key]


class OfficerTokens:
    """Checks officer tokens against the registered identity providers.

    Raises RegistryError when a provider's key set holds no key that could sign one.
    """

    def __init__(
        self, registry: Registry, trust: TrustRoots, clock: Clock, audience: str = AUDIENCE
    ) -> None:
        self._registry = registry
        self._audience = audience
        self._clock = clock
        self._keys = {
            ori: _Provider(provider, _signing_keys(ori, provider))
            for ori, provider in trust.identity_providers.items()
        }

    def with_registered(
        self, registry: Registry, providers: Mapping[str, IdentityProvider]
    ) -> "OfficerTokens":
        """The same by what is registered now. A provider whose keys can sign nothing counts as none.

        Keys that are the same are not read again: of a thousand agencies one changes at a time.
        """
        other = copy.copy(self)
        other._registry = registry
        other._keys = {}
        for ori, provider in providers.items():
            known = self._keys.get(ori)
            if known is not None and known.registered is provider:
                other._keys[ori] = known
                continue
            try:
                other._keys[ori] = _Provider(provider, _signing_keys(ori, provider))
            except RegistryError as error:
                log.warning("an identity provider is none", extra={"fields": {"why": str(error)}})
                other._keys[ori] = _Provider(provider, {})
        return other

    def verify(self, token: str, origin_agency: str, search_id: str) -> str:
        """The officer's identifier. Raises NotAuthentic, or NotAllowed for another agency's officer."""
        provider = self._keys.get(origin_agency)
        if provider is None or not provider.keys:
            raise NotAuthentic(
                "IDENTITY_PROVIDER_UNKNOWN",
                f"agency {origin_agency} has registered no identity provider for its officers",
            )
        claims = self._claims(token, provider.registered.issuer, provider.keys)
        if claims["nonce"] != search_id:
            raise NotAuthentic(
                "OFFICER_TOKEN_UNBOUND", "the officer token was issued for another search"
            )
        officer = str(claims["sub"])
        if _OFFICER.fullmatch(officer) is None:
            raise NotAuthentic(
                "OFFICER_TOKEN_INVALID", "the officer token's subject is no officer's identifier"
            )
        known = self._registry.officers.get(officer)
        if known is not None and known.agency != origin_agency:
            raise NotAllowed(
                "OFFICER_TOKEN_FOREIGN", "the officer belongs to another agency than the token's"
            )
        return officer

    def _claims(self, token: str, issuer: str, keys: dict[str, _Key]) -> dict[str, Any]:
        ordinary = _ordinary_claims(token, issuer, keys, self._audience)
        claims = ordinary or self._any_claims(token, issuer, keys)
        self._check_times(claims)
        return claims

    def _any_claims(self, token: str, issuer: str, keys: dict[str, _Key]) -> dict[str, Any]:
        try:
            key = keys.get(_key_id(token))
            if key is None:
                raise NotAuthentic(
                    "OFFICER_TOKEN_FOREIGN",
                    "the officer token is not signed by a key of the origin agency's provider",
                )
            return jwt.decode(
                token,
                key.jwk,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=issuer,
                options={
                    "require": list(_REQUIRED),
                    # Checked below, against our clock.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.InvalidTokenError, RecursionError) as error:
            # RecursionError: the header is read before any signature, and may be nested deeply.
            wrong = isinstance(error, jwt.InvalidAudienceError)
            why = f"it must be for the audience {self._audience}" if wrong else _plain(error)
            raise NotAuthentic(
                "OFFICER_TOKEN_INVALID", f"the officer token is not acceptable: {why}"
            ) from error

    def _check_times(self, claims: dict[str, Any]) -> None:
        issued, expires = claims["iat"], claims["exp"]
        not_before = claims.get("nbf", issued)
        if not (_is_time(issued) and _is_time(expires) and _is_time(not_before)):
            raise NotAuthentic("OFFICER_TOKEN_INVALID", "the officer token's times are not numbers")
        now = self._clock.now().timestamp()
        if now >= expires + _SKEW_S:
            raise NotAuthentic("OFFICER_TOKEN_EXPIRED", "the officer token has expired")
        if now < max(issued, not_before) - _SKEW_S:
            raise NotAuthentic("OFFICER_TOKEN_INVALID", "the officer token is not valid yet")
        if expires - issued > _LIFETIME_MAX_S:
            raise NotAuthentic(
                "OFFICER_TOKEN_INVALID",
                f"the officer token lives longer than {LIFETIME_MAX} allow",
            )


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 2**40


def _ordinary_claims(
    token: str, issuer: str, keys: dict[str, _Key], audience: str
) -> dict[str, Any] | None:
    """The claims of a token that is signed with Ed25519 and has nothing unusual about it.

    Such a token costs a third this way. It refuses none: on the least doubt it gives None, and PyJWT
    decides.
    """
    parts = _ORDINARY.fullmatch(token)
    if parts is None:
        return None
    try:
        key = keys.get(_ordinary_key_id(parts[1]))
        if key is None or key.ed25519 is None:
            return None
        signed = token[: parts.end(2)].encode("ascii")
        # 86 letters are 64 bytes: what comes before the message is the signature and nothing else.
        crypto_sign_open(_canonical(parts[3]) + signed, key.ed25519)
        # As text: of bytes, JSON would first look which of five encodings they might be in.
        claims = json.loads(_canonical(parts[2]).decode())
        if not isinstance(claims, dict):
            return None
        for name in _REQUIRED:
            if claims.get(name) is None:
                return None
        ours = claims["iss"] == issuer and claims["aud"] == audience
        return claims if ours and isinstance(claims["sub"], str) and "jti" not in claims else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    except nacl.exceptions.CryptoError:
        return None


# A provider signs all its tokens with one key, and so under one header.
@functools.lru_cache(maxsize=_HEADERS_AT_HAND)
def _ordinary_key_id(part: str) -> str:
    """The key that an ordinary header names. Raises ValueError, KeyError, TypeError, or AttributeError."""
    header = json.loads(_canonical(part))
    if not header.keys() <= _ORDINARY_HEADER or header["alg"] != "EdDSA":
        raise ValueError("not an ordinary header")
    name = header["kid"]
    if not isinstance(name, str):
        raise TypeError("a key's name is a text")
    return name


def _canonical(part: str) -> bytes:
    """The bytes of a part of a token, if this is their one spelling. Raises ValueError."""
    standard = part.encode("ascii").translate(_TO_STANDARD) + b"=" * (-len(part) % 4)
    raw = a2b_base64(standard)
    if b2a_base64(raw, newline=False) != standard:
        raise ValueError("not base64url in its one spelling")
    return raw


def check_usable(ori: str, provider: IdentityProvider) -> None:
    """Raise RegistryError when nobody could be vouched for with this provider's keys."""
    _signing_keys(ori, provider)


def _signing_keys(ori: str, provider: IdentityProvider) -> dict[str, _Key]:
    try:
        # As JSON has it: read strictly from TOML, its lists are tuples.
        jwks = json.loads(json.dumps(dict(provider.jwks)))
        keys = jwt.PyJWKSet.from_dict(jwks).keys
    except (jwt.PyJWTError, AttributeError, TypeError, ValueError) as error:
        raise RegistryError(
            f"identity_providers.{ori}.jwks: not a JSON Web Key Set ({type(error).__name__})"
        ) from error
    usable = {
        key.key_id: _Key(key, _ed25519(key))
        for key in keys
        if key.key_id and key.algorithm_name in ALGORITHMS
    }
    if not usable:
        raise RegistryError(
            f"identity_providers.{ori}.jwks: no key with a kid that signs {' or '.join(ALGORITHMS)}"
        )
    return usable


def _ed25519(key: jwt.PyJWK) -> bytes | None:
    if key.algorithm_name != "EdDSA" or not isinstance(key.key, Ed25519PublicKey):
        return None
    return key.key.public_bytes_raw()


def _plain(error: Exception) -> str:
    """What is wrong, for whoever sets up a provider. PyJWT's own text may quote the token."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"it lacks the claim {error.claim}"  # one of ours, never what stands in the token
    return _WORDS.get(type(error), type(error).__name__)


def _key_id(token: str) -> str:
    """The key that an unverified token names. PyJWT would read the whole token for it, twice."""
    try:
        name = json.loads(base64url_decode(token.partition(".")[0]))["kid"]
        if isinstance(name, str):
            return name
    except (ValueError, KeyError, TypeError) as error:
        raise jwt.InvalidTokenError from error
    raise jwt.InvalidTokenError
