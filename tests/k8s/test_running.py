"""The overlays as they would run, each pod by what its manifest says (`support.clusters`)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.config import BrokerSettings
from broker.streams import ANSWERS_CONSUMER, ANSWERS_STREAM, ensure_answers, ensure_orders
from shared.bus import Delivery, connected
from shared.settings import BusSettings, TlsFiles
from support.clusters import Cluster, Replica
from support.manifests import DEPLOY, World, rendered, trial_objects
from support.waiting import until

TIMEOUT_S = 60.0


def cluster_of(overlay: str, folder: Path) -> Cluster:
    manifests = rendered(DEPLOY / "overlays" / overlay)
    world = World([*manifests.objects, *trial_objects(folder / "trial")])
    return Cluster(manifests, world, folder / overlay)


@pytest.fixture(name="single_node")
def _single_node(tmp_path: Path) -> Iterator[Cluster]:
    made = cluster_of("single-node", tmp_path)
    try:
        yield made
    finally:
        made.kill()


async def test_a_search_goes_through_the_pods_of_the_single_node_overlay(
    single_node: Cluster,
) -> None:
    begun = single_node.complete("ledger-begin")
    assert begun.stdout.startswith("BEGUN"), begun.stderr
    for name in ("nats", "ledger", "policy", "broker", "connector"):
        await single_node.start(name)
    published = single_node.complete("publish-directives")
    assert published.returncode == 0, f"{published.stdout}\n{published.stderr}"
    done = single_node.complete("smoke")
    said = single_node.log(Replica(single_node.part("broker")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{said}"
    again = single_node.complete("ledger-begin")
    assert again.stdout.startswith("THERE"), again.stderr
    again = single_node.complete("publish-directives")
    assert again.returncode == 0, again.stderr
    assert "Published" not in again.stdout
    for name in ("connector", "broker", "policy"):
        assert single_node.stop(name) == 0, single_node.log(Replica(single_node.part(name)))
    await a_backup_is_restored(single_node)
    assert single_node.stop("ledger") == 0


async def a_backup_is_restored(cluster: Cluster) -> None:
    """As docs/operating-kubernetes.md says it: made while the ledger runs, put in place while it does not."""
    made = cluster.complete("ledger-backup", JOB="ledger-backup-1")
    assert made.stdout.startswith("BACKED UP"), made.stderr
    early = cluster.complete("ledger-restore", BACKUP="ledger-backup-1")
    assert early.returncode == 1, "over a log that is there"
    assert cluster.stop("ledger") == 0
    for file in cluster.claim("data-ledger").iterdir():
        file.unlink()
    unnamed = cluster.complete("ledger-restore")
    assert unnamed.returncode == 1, unnamed.stdout
    restored = cluster.complete("ledger-restore", BACKUP="ledger-backup-1")
    assert restored.stdout.startswith("RESTORED"), restored.stderr
    # Its probe asks whether it takes entries.
    await cluster.start("ledger")


@pytest.fixture(name="state_and_agency")
def _state_and_agency(tmp_path: Path) -> Iterator[tuple[Cluster, Cluster]]:
    state = cluster_of("production", tmp_path)
    agency = cluster_of("connector", tmp_path)
    agency.elsewhere = {"nats.countersign.example": (state, "nats")}
    try:
        yield state, agency
    finally:
        agency.kill()
        state.kill()


def as_part(cluster: Cluster, name: str, folder: Path) -> BusSettings:
    """How a part of a cluster connects to that cluster's bus."""
    files = cluster.world.files("Secret", f"{name}-tls")
    folder.mkdir(parents=True)
    for key, content in files.items():
        (folder / key).write_bytes(content)
    tls = TlsFiles(
        certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "ca.crt"
    )
    port = cluster.port(Replica(cluster.part("nats")), 4222)
    return BusSettings(servers=(f"tls://127.0.0.1:{port}",), tls=tls)


async def test_orders_reach_an_agency_over_its_leaf_node_and_answers_come_back(
    state_and_agency: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    """Three nodes of production, each stream on all of them, and the agency's own server."""
    state, agency = state_and_agency
    await state.start("nats", replicas=3)
    await agency.start("nats")
    orders: asyncio.Queue[bytes] = asyncio.Queue()
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def take_order(delivery: Delivery) -> None:
        await orders.put(delivery.data)

    async def take_answer(delivery: Delivery) -> None:
        await answers.put(delivery.data)

    broker_settings = BrokerSettings.model_construct(
        streams_replicas=3,
        orders_bytes_max=1024**3,
        answers_kept=BrokerSettings.model_fields["answers_kept"].default,
    )
    at_state = as_part(state, "broker", tmp_path / "as-broker")
    at_agency = as_part(agency, "connector", tmp_path / "as-connector")
    async with (
        connected(at_state, "broker") as broker,
        connected(at_agency, "connector-lacris") as connector,
    ):
        await ensure_answers(broker, broker_settings)
        await ensure_orders(broker, "lacris", broker_settings)
        await broker.consume(ANSWERS_STREAM, ANSWERS_CONSUMER, take_answer, 8, "answers")
        await connector.consume("ORDERS_LACRIS", "connector", take_order, 8, "orders")
        await broker.publish_durable("orders.lacris.1", b"an order", "1", "orders")
        assert await asyncio.wait_for(orders.get(), TIMEOUT_S) == b"an order"
        await connector.publish_durable("answers.lacris.1", b"an answer", "1", "answers")
        assert await asyncio.wait_for(answers.get(), TIMEOUT_S) == b"an answer"

        async def acknowledged() -> bool | None:
            return await broker.last_message("ORDERS_LACRIS", "orders.lacris.1") is None or None

        await until(acknowledged)


async def test_a_stranger_s_leaf_node_hears_nothing(
    state_and_agency: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    """A certificate of the same authority that is no connector's leads into no account."""
    state, agency = state_and_agency
    stranger = agency.world.files("Secret", "policy-tls")
    agency.world.files("Secret", "connector-tls").update(stranger)
    await state.start("nats", replicas=3)
    await agency.start("nats")

    async def turned_away() -> bool | None:
        return "Authorization Violation" in agency.log(Replica(agency.part("nats"))) or None

    await until(turned_away)
    assert "account: CONNECTOR" in agency.log(Replica(agency.part("nats")))
