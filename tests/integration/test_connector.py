"""The whole connector on a real bus: started from its file, given orders, killed, started again."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker.config import BrokerSettings
from broker.streams import (
    ANSWERS_STREAM,
    answer_subject,
    ensure_answers,
    ensure_orders,
    order_subject,
)
from connector.__main__ import running
from connector.config import ConnectorSettings
from countersign.connector.v1.connector_pb2 import FailureReason, SignedAnswer, SignedOrder
from shared.bus import Bus, connected
from shared.clock import SystemClock
from shared.rpc import open_channel
from shared.settings import ListenSettings, SettingsError
from shared.signing import BadKey
from support import pictures
from support.forked import ForkedProcess, fork
from support.nats_servers import TRUST_DOMAIN, NatsUnderTest
from support.nats_servers import nats_server as nats_server
from support.orders import SEARCH_ID, SYSTEM, OrderWorkshop
from support.waiting import WAIT_S_MAX, until

DIRECTIVES = Path(__file__).resolve().parents[2] / "directives"
"""The demonstration's registry and directives: the sheriff's are the connector's own."""

RECORDS = 24
"""More than are returned; the matcher's own tests have the whole gallery, which takes longer to enrol."""

LOAD_TEST = '[behind]\nadapter = "answers-at-once"\n'


class Installation:
    """One connector's files, and the broker's end of the bus."""

    def __init__(self, folder: Path, server: NatsUnderTest, broker: Bus) -> None:
        self.workshop = OrderWorkshop(now=SystemClock().now())
        self.broker = broker
        self.server = server
        self.folder = folder
        self.config = folder / "connector.toml"
        self.errors = folder / "connector.log"

    def write(self, behind: str) -> None:
        """Writes the connector's configuration with this system behind it."""
        workshop, folder = self.workshop, self.folder
        (folder / "answers.pem").write_bytes(workshop.connector_answers.pem())
        (folder / "probes.pem").write_bytes(workshop.connector_probes.pem())
        trust = {
            "log_verifier_keys": [workshop.log.verifier.vkey],
            "broker_verify_keys": [text(workshop.broker.verify_key.raw)],
            "systems": {
                SYSTEM: {
                    "sealing_public_key": text(workshop.connector_probes.public_key),
                    "answer_verify_key": text(workshop.connector_answers.verify_key.raw),
                }
            },
        }
        (folder / "trust.json").write_text(json.dumps(trust))
        tls = self.server.certificates.tls("connector", SYSTEM, listens=True)
        tls_lines = "\n".join(
            f'{name} = "{path}"' for name, path in tls.model_dump(mode="json").items()
        )
        self.config.write_text(
            f"""
system = "{SYSTEM}"
gallery = "lacris-booking"
trust_domain = "{TRUST_DOMAIN}"
registry = "{DIRECTIVES}/demo-registry.toml"
directives = "{DIRECTIVES}"
trust_roots = "trust.json"
answer_signing_key = "answers.pem"
probe_opening_key = "probes.pem"
state = "state"
{behind}
[scale]
threshold = 0.78
[listen]
address = "127.0.0.1:0"
port_file = "port"
[listen.tls]
{tls_lines}
[bus]
servers = ["tls://127.0.0.1:{self.server.port}"]
[bus.tls]
{tls_lines}
"""
        )

    async def send(self, signed: SignedOrder, search_id: str = SEARCH_ID) -> None:
        """Publishes an order as the broker does."""
        await self.broker.publish_durable(
            order_subject(SYSTEM, search_id),
            signed.SerializeToString(),
            message_id=f"{search_id}/{len(signed.order)}",
            template="orders",
        )

    async def answer(self, search_id: str = SEARCH_ID) -> SignedAnswer:
        """The answer, as soon as it is on the bus."""

        async def published() -> bytes | None:
            return await self.broker.last_message(ANSWERS_STREAM, answer_subject(SYSTEM, search_id))

        return SignedAnswer.FromString(await until(published))


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture(name="installation")
async def _installation(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[Installation]:
    folder = tmp_path / "connector"
    folder.mkdir()
    async with connected(nats_server.bus_settings("service", "broker"), "broker") as bus:
        settings = BrokerSettings(
            trust_domain=TRUST_DOMAIN,
            listen=ListenSettings(
                address="127.0.0.1:0", tls=nats_server.certificates.tls("service", "broker")
            ),
            bus=nats_server.bus_settings("service", "broker"),
            registry=folder,
            trust_roots=folder,
            order_signing_key=folder,
        )
        await ensure_answers(bus, settings)
        await ensure_orders(bus, SYSTEM, settings)
        yield Installation(folder, nats_server, bus)


async def test_order_is_answered_with_ranked_candidates(installation: Installation) -> None:
    workshop = installation.workshop
    gallery = installation.folder / "gallery"
    gallery.mkdir()
    for picture in sorted(pictures.GALLERY.glob("*.jpg"))[:RECORDS]:
        (gallery / picture.name).symlink_to(picture)
    installation.write(f'[behind]\nadapter = "reference"\nfolder = "{gallery}"\n')
    order = workshop.sign(workshop.order(probe=pictures.probe(7)))

    async with running(ConnectorSettings.load(installation.config)):
        await installation.send(order)
        signed = await installation.answer()

    answer = workshop.checked(signed)
    assert answer.found.gallery_size == RECORDS
    assert answer.found.returned == 20
    found = workshop.opened(signed, order)
    first, second = found.candidates[:2]
    assert first.similarity_score >= second.similarity_score
    assert {first.image_sha256, second.image_sha256} == {
        pictures.sha256_of("id07_0.jpg"),
        pictures.sha256_of("id07_1.jpg"),
    }


async def test_connector_takes_up_orders_that_came_while_it_was_away(
    installation: Installation,
) -> None:
    workshop = installation.workshop
    installation.write(LOAD_TEST)
    await installation.send(workshop.sign(workshop.order()))

    async with running(ConnectorSettings.load(installation.config)):
        signed = await installation.answer()

    assert workshop.checked(signed).HasField("found")


@pytest.mark.promise(2)
async def test_forged_order_is_refused_on_the_bus(installation: Installation) -> None:
    workshop = installation.workshop
    installation.write(LOAD_TEST)
    order = workshop.order()
    order.decision_receipt.leaf += b"\x12\x00"

    async with running(ConnectorSettings.load(installation.config)):
        await installation.send(workshop.sign(order))
        signed = await installation.answer()

    failure = workshop.checked(signed).failure
    assert failure.reason == FailureReason.FAILURE_REASON_ORDER_REJECTED
    assert failure.check == "RECEIPT_INVALID"


async def test_connector_works_on_after_the_bus_was_killed(installation: Installation) -> None:
    workshop = installation.workshop
    installation.write(LOAD_TEST)
    order = workshop.sign(workshop.order())

    async with running(ConnectorSettings.load(installation.config)):
        installation.server.kill()
        installation.server.start()

        async def sent() -> bool:
            with contextlib.suppress(Exception):
                await installation.send(order)
                return True
            return False

        await until(sent)
        signed = await installation.answer()

    assert workshop.checked(signed).HasField("found")


async def test_process_starts_tells_its_health_and_stops(installation: Installation) -> None:
    installation.write(LOAD_TEST)
    process = start(installation)
    try:
        port_file = installation.folder / "port"

        async def port() -> str | None:
            return port_file.read_text().strip() if port_file.exists() else None

        address = f"127.0.0.1:{await until(port)}"
        tls = installation.server.certificates.tls("operator", "test")
        async with open_channel(address, tls) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            told = await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S_MAX)
    finally:
        process.terminate()
        code = await asyncio.to_thread(process.wait, WAIT_S_MAX)

    assert told.status == health_pb2.HealthCheckResponse.SERVING
    assert code == 0, installation.errors.read_text()


async def test_killed_connector_answers_after_its_restart(installation: Installation) -> None:
    workshop = installation.workshop
    installation.write(LOAD_TEST)
    first = start(installation)
    first.kill()
    await asyncio.to_thread(first.wait, WAIT_S_MAX)
    await installation.send(workshop.sign(workshop.order()))

    second = start(installation)
    try:
        signed = await installation.answer()
    finally:
        second.terminate()
        await asyncio.to_thread(second.wait, WAIT_S_MAX)

    assert workshop.checked(signed).HasField("found")


def start(installation: Installation) -> ForkedProcess:
    """The connector as a process of its own."""
    with installation.errors.open("ab") as errors:
        return fork("connector", [installation.config], stdout=errors, stderr=errors)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('system = "lacris"', 'system = "facefind"'), "gallery"),
        (('system = "lacris"', 'system = "nowhere"'), "no system"),
        (('gallery = "lacris-booking"', 'gallery = "facefind-web"'), "no gallery"),
        (('state = "state"', 'state = "trust.json/below"'), "state folder"),
        (("threshold = 0.78", ""), "scale.threshold"),
        (('adapter = "answers-at-once"', 'adapter = "unknown"'), "behind"),
        (('adapter = "answers-at-once"', ""), "behind"),
        (('answer_signing_key = "answers.pem"', 'answer_signing_key = "missing.pem"'), "missing"),
        ((f'directives = "{DIRECTIVES}"', 'directives = "state"'), "directives"),
    ],
)
async def test_wrong_configuration_stops_the_start_and_is_named(
    installation: Installation, change: tuple[str, str], named: str
) -> None:
    installation.write(LOAD_TEST)
    installation.config.write_text(installation.config.read_text().replace(*change))

    with pytest.raises((SettingsError, BadKey), match=named):
        async with running(ConnectorSettings.load(installation.config)):
            pass


async def test_keys_that_the_trust_roots_do_not_know_stop_the_start(
    installation: Installation,
) -> None:
    installation.write(LOAD_TEST)
    other = OrderWorkshop()
    (installation.folder / "probes.pem").write_bytes(other.connector_probes.pem())

    with pytest.raises(SettingsError, match="other keys"):
        async with running(ConnectorSettings.load(installation.config)):
            pass
