"""A broker that follows what owners publish, beside the policy service and the ledger of a scene.

async with following(scene) as lapd: ...
"""

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from broker.__main__ import running
from broker.config import BrokerSettings
from countersign.broker.v1 import broker_pb2 as pb
from countersign.client import Client, ClientSettings
from countersign.client.config import Endpoint, LedgerEndpoint
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.installation.files import write_secret
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.installation.ports import address
from shared.errors import Unavailable
from shared.sealing import PrivateKey
from shared.settings import BusSettings, ListenSettings
from shared.signing import SigningKey
from support.brokers import own_case
from support.directives import LAPD, TRAINED
from support.nats_servers import TRUST_DOMAIN
from support.publishing import Scene
from support.waiting import until

Registration = Mapping[str, object]
"""An issuer and its key set."""

ISSUER = "https://id.lapd.test"
SEALING = PrivateKey.generate()


@dataclass(frozen=True)
class AgencyOfAScene:
    """LAPD's system."""

    client: Client

    def sealed(self) -> PreparedSearch:
        """An own case."""
        return seal_search(own_case(), b"a picture", SEALING.public_key)

    async def submit(self, key: SigningKey) -> pb.Search:
        """An own case, in the name of a trained officer whom this key vouches for."""
        prepared = self.sealed()
        token = DevelopmentIdentityProvider(ISSUER, key).token(TRAINED, prepared.search_id)
        return await self.client.submit(prepared, token)

    async def knows(self, system: str) -> None:
        """Waits until the broker tells of a system."""

        async def told() -> bool:
            try:
                return system in {one.id for one in (await self.client.systems()).systems}
            except Unavailable:
                return False

        await until(told)


def development_provider(key: SigningKey) -> Registration:
    """An identity provider with this key."""
    return DevelopmentIdentityProvider(ISSUER, key).registration()


def provider_in_toml(registered: Registration) -> str:
    """An identity provider as it stands below [keys]."""
    jwks: Any = registered["jwks"]
    keys = ", ".join(
        "{ " + ", ".join(f'{name} = "{value}"' for name, value in jwk.items()) + " }"
        for jwk in jwks["keys"]
    )
    return f'identity_provider = {{ issuer = "{registered["issuer"]}", jwks = {{ keys = [{keys}] }} }}\n'


def write_broker_trust(scene: Scene) -> None:
    """What this broker trusts: no agency's identity provider, which each registers itself."""
    trust = json.loads((scene.folder / "trust-roots.json").read_text())
    key = SigningKey.generate()
    write_secret(scene.folder / "order.pem", key.pem())
    trust["systems"] = {
        "lacris": {
            "sealing_public_key": _text(SEALING.public_key),
            "answer_verify_key": _text(key.verify_key.raw),
        }
    }
    (scene.folder / "broker-trust.json").write_text(json.dumps(trust))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@contextlib.asynccontextmanager
async def following(scene: Scene) -> AsyncIterator[AgencyOfAScene]:
    """The agency's system, connected to a broker without a registry file."""
    tls = scene.nats.certificates.tls("service", "broker", listens=True)
    bus = BusSettings(servers=(f"tls://127.0.0.1:{scene.nats.port}",), tls=tls)
    settings = BrokerSettings(
        trust_domain=TRUST_DOMAIN,
        listen=ListenSettings(address="127.0.0.1:0", tls=tls),
        bus=bus,
        trust_roots=scene.folder / "broker-trust.json",
        order_signing_key=scene.folder / "order.pem",
    )
    async with running(settings) as broker:
        client = ClientSettings(
            agency=LAPD,
            broker=Endpoint(address=address(broker.server.port)),
            ledger=LedgerEndpoint(address="127.0.0.1:1"),
            tls=scene.nats.certificates.tls("agency", LAPD),
            trust_roots=scene.folder / "broker-trust.json",
        )
        async with Client.connect(client) as connected:
            yield AgencyOfAScene(connected)
        assert not broker.ended.is_set()
