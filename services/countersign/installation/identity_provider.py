"""The development identity provider: signs officer tokens for whomever it is told.

It stands in for an agency's real provider, which would first see a password, a card or a face. That
is why it exists only where an installation's own keys are at hand, and nowhere on the network.
"""

import base64
from datetime import timedelta
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from shared.clock import Clock, SystemClock
from shared.signing import SigningKey
from shared.tokens import AUDIENCE

TOKEN_LIFETIME: Final = timedelta(minutes=5)
"""Long enough to fill in a form, too short to be passed on."""


class DevelopmentIdentityProvider:
    """Vouches for the officers of one agency."""

    def __init__(self, issuer: str, key: SigningKey, clock: Clock | None = None) -> None:
        self._issuer = issuer
        self._key = key
        # Read once: a token is signed in much less time than a key is parsed.
        private = OKPAlgorithm().prepare_key(key.pem())
        assert isinstance(private, Ed25519PrivateKey), "a SigningKey is one"
        self._private = private
        self._clock = clock or SystemClock()

    def token(
        self,
        officer: str,
        search_id: str,
        lifetime: timedelta = TOKEN_LIFETIME,
        audience: str = AUDIENCE,
    ) -> str:
        """A token that lets one officer make one search, or one request of the ledger."""
        now = self._clock.now()
        claims = {
            "iss": self._issuer,
            "aud": audience,
            "sub": officer,
            "iat": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
            "nonce": search_id,
        }
        headers = {"kid": self._key.key_id}
        return jwt.encode(claims, self._private, algorithm="EdDSA", headers=headers)

    def registration(self) -> dict[str, object]:
        """What the trust roots hold of this provider: its issuer and public key (RFC 8037)."""
        public = base64.urlsafe_b64encode(self._key.verify_key.raw).rstrip(b"=").decode()
        key = {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self._key.key_id,
            "x": public,
        }
        return {"issuer": self._issuer, "jwks": {"keys": [key]}}
