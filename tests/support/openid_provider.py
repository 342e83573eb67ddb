"""An agency's OpenID Connect provider, of a library that knows nothing of us, behind HTTPS on this machine.

Authlib decides all that the standard does: which requests and clients are good, what a code is for, what
stands in an ID token and how it is signed. Here is only what each provider adds: where officers sign in,
which clients are registered, what they were given, and the keys.

    async with openid_provider(tls, [RegisteredClient("countersign-broker", lives_s=300)]) as provider:
        token = await provider.id_token("lapd-40123", search_id, "countersign-broker")
"""

import base64
import contextlib
import hashlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from aiohttp import web
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import AuthorizationCodeMixin, OpenIDCode, UserInfo
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
from joserfc.jwk import ECKey, KeyParameters, KeySet

from countersign.installation.ports import LOOPBACK
from shared.settings import TlsFiles

REDIRECT: Final = "https://records.lapd.test/signed-in"
"""The agency's own system; its answer to the browser is not what is tested."""
PASSWORD: Final = "correct horse"
ALGORITHM: Final = "ES256"


@dataclass(frozen=True)
class RegisteredClient(ClientMixin):  # type: ignore[misc]  # it ships no types
    """A program for which officers sign in."""

    client_id: str
    lives_s: int
    """How long its ID tokens are good for."""
    secret: str = field(default_factory=secrets.token_urlsafe)
    id_token_signed_response_alg: str = ALGORITHM

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return REDIRECT

    def get_allowed_scope(self, scope: str) -> str:
        return scope if scope == "openid" else ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == REDIRECT

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret, self.secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method, endpoint) == ("client_secret_basic", "token")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass(frozen=True)
class Code(AuthorizationCodeMixin):  # type: ignore[misc]  # likewise
    """What an officer's browser carries to the client, once."""

    code: str
    officer: str
    client_id: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return REDIRECT

    def get_scope(self) -> str:
        return "openid"

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> None:
        """Not asked for."""


class _Asked(OAuth2Request):  # type: ignore[misc]  # likewise
    """A request as Authlib wants to read it, whichever server took it."""

    def __init__(self, asked: web.Request, issuer: str, form: Mapping[str, str]) -> None:
        super().__init__(asked.method, f"{issuer}{asked.path_qs}", headers=asked.headers)
        self._form = dict(form)
        self.payload = BasicOAuth2Payload(dict(asked.query) | self._form)

    @property
    def args(self) -> dict[str, str]:
        return dict(self.payload.data)

    @property
    def form(self) -> dict[str, str]:
        return self._form


class OpenIdProvider(AuthorizationServer):  # type: ignore[misc]  # likewise
    """The provider of one agency."""

    def __init__(self, clients: list[RegisteredClient]) -> None:
        super().__init__(scopes_supported=["openid"])
        self.issuer = ""
        self.codes: dict[str, Code] = {}
        self.keys = [_new_key(1)]
        """In its key set; the last one signs."""
        self.clients = {client.client_id: client for client in clients}
        self.trusting: ssl.SSLContext | None = None
        bearer = BearerTokenGenerator(lambda **_: secrets.token_urlsafe())
        self.register_token_generator("default", bearer)
        extensions = [CodeChallenge(required=True), _IdTokens(self)]
        self.register_grant(_CodeFlow, extensions)

    def begin_new_key(self) -> None:
        """Signs with a new key from now on; the old one stays in the key set."""
        self.keys.append(_new_key(len(self.keys) + 1))

    def retire_old_keys(self) -> None:
        """Publishes only the key that signs."""
        del self.keys[:-1]

    @contextlib.contextmanager
    def tokens_live(self, client: str, lives_s: int) -> Iterator[None]:
        """With another setting of one client, for a while."""
        registered = self.clients[client]
        self.clients[client] = replace(registered, lives_s=lives_s)
        try:
            yield
        finally:
            self.clients[client] = registered

    async def registration(self) -> dict[str, Any]:
        """What the agency registers: read from the provider as anybody may read it."""
        async with self._session() as session:
            found = await _json(session.get(get_well_known_url(self.issuer, external=True)))
            assert ALGORITHM in found["id_token_signing_alg_values_supported"]
            return {"issuer": found["issuer"], "jwks": await _json(session.get(found["jwks_uri"]))}

    async def id_token(self, officer: str, nonce: str, client: str) -> str:
        """The officer signs in to a program by the authorization code flow."""
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        async with self._session() as session:
            found = await _json(session.get(get_well_known_url(self.issuer, external=True)))
            wanted = {
                "response_type": "code",
                "client_id": client,
                "redirect_uri": REDIRECT,
                "scope": "openid",
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge.decode().rstrip("="),
                "code_challenge_method": "S256",
            }
            at = found["authorization_endpoint"]
            signing_in = {"officer": officer, "password": PASSWORD}
            async with session.post(
                at, params=wanted, data=signing_in, allow_redirects=False
            ) as sent_back:
                assert sent_back.status == 302, await sent_back.text()
                where = sent_back.headers["Location"]
            assert where.startswith(f"{REDIRECT}?"), where
            said = dict(parse_qsl(urlsplit(where).query))
            assert said["state"] == state
            spent = {
                "grant_type": "authorization_code",
                "code": said["code"],
                "redirect_uri": REDIRECT,
                "code_verifier": verifier,
            }
            basic = aiohttp.encode_basic_auth(client, self.clients[client].secret)
            at = found["token_endpoint"]
            tokens = await _json(session.post(at, data=spent, headers={"Authorization": basic}))
        return str(tokens["id_token"])

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trusting or True))

    # What Authlib asks of whoever runs it.

    def query_client(self, client_id: str) -> RegisteredClient | None:
        return self.clients.get(client_id)

    def save_token(self, token: object, request: object) -> None:
        """Access tokens are not used."""

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Nobody listens."""

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> web.Response:
        text = json.dumps(body) if isinstance(body, dict) else body
        return web.Response(status=status, text=text, headers=dict(headers))

    # Its doors.

    async def metadata(self, _: web.Request) -> web.Response:
        said = OpenIDProviderMetadata(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "scopes_supported": ["openid"],
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                # RS256 has to be on offer, by OpenID Connect Discovery; none of our clients asks for it.
                "id_token_signing_alg_values_supported": ["RS256", ALGORITHM],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                "code_challenge_methods_supported": ["S256"],
            }
        )
        said.validate()
        return web.json_response(dict(said))

    async def jwks(self, _: web.Request) -> web.Response:
        return web.json_response(KeySet([*self.keys]).as_dict(private=False))

    async def authorize(self, asked: web.Request) -> web.Response:
        signing_in = {name: str(value) for name, value in (await asked.post()).items()}
        known = secrets.compare_digest(signing_in.pop("password", ""), PASSWORD)
        officer = signing_in.pop("officer", "")
        request = _Asked(asked, self.issuer, signing_in)
        try:
            grant = self.get_consent_grant(request, officer)
        except OAuth2Error as error:
            return self.handle_response(*error())
        response = self.create_authorization_response(
            request, grant_user=officer if known else None, grant=grant
        )
        assert isinstance(response, web.Response)
        return response

    async def token(self, asked: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await asked.post()).items()}
        response = self.create_token_response(_Asked(asked, self.issuer, form))
        assert isinstance(response, web.Response)
        return response


class _CodeFlow(AuthorizationCodeGrant):  # type: ignore[misc]  # likewise
    """Keeps codes in the provider's memory."""

    TOKEN_ENDPOINT_AUTH_METHODS: Final = ["client_secret_basic"]

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        asked = request.payload.data
        self.server.codes[code] = Code(
            code=code,
            officer=request.user,
            client_id=request.client.client_id,
            nonce=asked["nonce"],
            code_challenge=asked["code_challenge"],
            code_challenge_method=asked["code_challenge_method"],
        )

    def query_authorization_code(self, code: str, client: RegisteredClient) -> Code | None:
        found: Code | None = self.server.codes.get(code)
        return found if found and found.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del self.server.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> str:
        return authorization_code.officer


class _IdTokens(OpenIDCode):  # type: ignore[misc]  # likewise
    """What makes ID tokens such as a broker takes: an officer's identifier, a short life, the newest key."""

    def __init__(self, provider: OpenIdProvider) -> None:
        super().__init__(require_nonce=True)
        self._provider = provider

    def exists_nonce(self, nonce: str, request: OAuth2Request) -> bool:
        return any(code.nonce == nonce for code in self._provider.codes.values())

    def generate_user_info(self, user: str, scope: str) -> UserInfo:
        return UserInfo(sub=user)

    def get_client_claims(self, client: RegisteredClient) -> dict[str, Any]:
        return {"iss": self._provider.issuer, "aud": client.client_id}

    def get_compatible_claims(self, request: OAuth2Request) -> dict[str, Any]:
        claims: dict[str, Any] = super().get_compatible_claims(request)
        return {**claims, "exp": claims["iat"] + request.client.lives_s}

    def get_encode_header(self, client: RegisteredClient) -> dict[str, Any]:
        return {**super().get_encode_header(client), "kid": self._provider.keys[-1].kid}

    def resolve_client_private_key(self, client: RegisteredClient) -> ECKey:
        del client
        return self._provider.keys[-1]


def _new_key(number: int) -> ECKey:
    parameters: KeyParameters = {"kid": f"key-{number}", "alg": ALGORITHM, "use": "sig"}
    return ECKey.generate_key("P-256", parameters)


async def _json(asking: Any) -> Any:
    async with asking as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


@contextlib.asynccontextmanager
async def openid_provider(
    tls: TlsFiles, clients: list[RegisteredClient]
) -> AsyncIterator[OpenIdProvider]:
    """A provider that serves."""
    provider = OpenIdProvider(clients)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key)
    provider.trusting = ssl.create_default_context(cafile=str(tls.authority))
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", provider.metadata),
            web.get("/jwks", provider.jwks),
            web.post("/authorize", provider.authorize),
            web.post("/token", provider.token),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0, ssl_context=context).start()
        provider.issuer = f"https://{LOOPBACK}:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()
