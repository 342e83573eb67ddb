"""The whole exchange under mixed load while every part is broken: the accounts of all sides agree.

Real processes. A round loads one installation from two agencies, breaks five parts in turn, lets every search
end, and has the judge of `support.exchange_history` read the verified ledger, what the clients wrote down
and what the connector has. The seed of a failure is in its message, with what was done.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from support.exchange_history import counts_of, in_vain, wrongs_of
from support.exchanges import Exchange, Load
from support.nats_clusters import NatsCluster
from support.nemesis import Bounds, Nemesis
from support.postgres import PostgresServer, PostgresUnderTest
from support.wires import why_not

pytestmark = [
    pytest.mark.fault,
    pytest.mark.promise(1),
    pytest.mark.promise(8),
    pytest.mark.timeout(6 * 3600),
]

SEED: Final = 20201113
EXPIRES_AFTER_S: Final = 8.0
"""Shorter than the minute after which the bus gives up on a connector: what was lost there expires."""
SETTLE_S: Final = 45.0
BOUNDS: Final = Bounds(hurt_s_max=3.0, rest_s_max=2.5)
CLUSTER_BOUNDS: Final = Bounds(hurt_s_max=12.0, rest_s_max=8.0)
"""Nodes take up to 7 s to elect another leader, and a client up to 15 s to see that its node is frozen."""
ROLLING_BOUNDS: Final = Bounds(hurt_s_max=1.0, rest_s_max=1.0)
WIRE_BOUNDS: Final = Bounds(hurt_s_max=20.0, rest_s_max=3.0)
"""A process gives up a silent connection after some 15 s, NATS after 30."""
LED: Final = ("ORDERS_LACRIS", "ANSWERS")
STRIKES: Final = 5
"""In each round."""
ALL: Final = frozenset({"answered", "failed", "expired", "withdrawn", "refused", "tried"})
"""A round in which one of these never happened shows nothing of it."""
REPLICAS: Final = (2, 1)
"""Brokers, and connectors of the one system, of the installations: in turns."""
ROUNDS_OF_AN_INSTALLATION: Final = 10
"""Then another is begun: each round verifies the whole ledger."""


Breaks = Callable[[Nemesis, Load], None]


def five_parts(nemesis: Nemesis, load: Load) -> None:
    nemesis.strike(load, STRIKES)


def one_round(
    exchange: Exchange, seed: int, breaks: Breaks = five_parts, bounds: Bounds = BOUNDS
) -> None:
    nemesis = Nemesis(exchange, seed, bounds)
    with exchange.load(seed, expires_after_s=EXPIRES_AFTER_S, settle_s=SETTLE_S) as load:
        try:
            breaks(nemesis, load)
        finally:
            exchange.heal()
        load.wait_until_seen(ALL)
    history = exchange.history()
    counts = counts_of(history)
    sys.stdout.write(f"{seed=} {nemesis.did} {dict(counts)}\n")
    wrongs = wrongs_of(history)
    assert not wrongs, "\n".join([f"{seed=}", *nemesis.did, f"{dict(counts)}", *wrongs[:50]])
    assert counts.keys() >= ALL, f"{seed=}"


@pytest.fixture(name="exchange", scope="module")
def _exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """Two of each part that may be two."""
    folder = tmp_path_factory.mktemp("exchange")
    with Exchange(folder, brokers=2, policies=2, connectors=2, with_links=True) as exchange:
        yield exchange


def test_a_rolling_restart_is_felt_by_no_client(exchange: Exchange) -> None:
    """Every part that has replicas is restarted in turn while searches are made, and nobody notices."""
    began = time.time()
    nemesis = Nemesis(exchange, SEED, ROLLING_BOUNDS)
    with exchange.load(
        SEED, expires_after_s=SETTLE_S, settle_s=2 * SETTLE_S, one_door=True, workers=2
    ) as load:
        nemesis.roll(load, [*exchange.brokers, *exchange.policies, *exchange.connectors])
    history = exchange.history()
    assert wrongs_of(history) == []
    assert [one for one in history.failed if one.at >= began] == []
    assert in_vain(history, SETTLE_S / 2) == []
    answered = {one.search_id for one in history.told if one.state == "answered" and one.at > began}
    assert len(answered) > len(nemesis.did)


def test_every_account_agrees_whatever_breaks(
    exchange: Exchange, tmp_path: Path, fault_rounds: int
) -> None:
    for number in range(min(ROUNDS_OF_AN_INSTALLATION, fault_rounds)):
        one_round(exchange, SEED + number)
    for start in range(ROUNDS_OF_AN_INSTALLATION, fault_rounds, ROUNDS_OF_AN_INSTALLATION):
        replicas = REPLICAS[start // ROUNDS_OF_AN_INSTALLATION % len(REPLICAS)]
        folder = tmp_path / f"exchange-{start}"
        with Exchange(folder, brokers=replicas, connectors=replicas, with_links=True) as another:
            for number in range(start, min(start + ROUNDS_OF_AN_INSTALLATION, fault_rounds)):
                one_round(another, SEED + number)


@pytest.mark.usefixtures("long_form")
def test_every_account_agrees_with_the_ledger_on_postgresql(
    tmp_path: Path, mortal_postgres_server: PostgresServer, fault_rounds: int
) -> None:
    mortal_postgres_server.make_database("exchange")
    database = PostgresUnderTest(mortal_postgres_server, "exchange", tmp_path)

    def breaks(nemesis: Nemesis, load: Load) -> None:
        five_parts(nemesis, load)
        nemesis.did.append("database killed")
        mortal_postgres_server.kill()
        load.wait_for(STRIKES, BOUNDS.hurt_s_max)
        mortal_postgres_server.start()
        load.wait_for(STRIKES, BOUNDS.rest_s_max)

    with Exchange(tmp_path / "exchange", brokers=2, connectors=2, database=database) as exchange:
        for number in range(fault_rounds):
            one_round(exchange, SEED + number, breaks)


@pytest.mark.usefixtures("long_form")
def test_every_account_agrees_whatever_breaks_in_a_cluster_of_three_nats_nodes(
    tmp_path: Path, fault_rounds: int
) -> None:
    """Each node killed, frozen and restarted, whichever leads a stream, and two of the three at once.

    Whichever leads is cut off from the other nodes as well, or hears them late, and goes on to serve clients.
    """
    for start in range(0, fault_rounds, ROUNDS_OF_AN_INSTALLATION):
        folder = tmp_path / f"exchange-{start}"
        with Exchange(folder, brokers=2, connectors=2, nats_cluster=True) as exchange:
            cluster = exchange.cluster
            assert cluster is not None

            def breaks(nemesis: Nemesis, load: Load, cluster: NatsCluster = cluster) -> None:
                nemesis.each(load, cluster.nodes)
                for stream in LED:
                    nemesis.one(load, cluster.leader(stream))
                    nemesis.part(load, cluster, cluster.leader(stream))
                nemesis.most(load, cluster.nodes)

            for number in range(start, min(start + ROUNDS_OF_AN_INSTALLATION, fault_rounds)):
                one_round(exchange, SEED + number, breaks, CLUSTER_BOUNDS)


@pytest.mark.usefixtures("long_form")
def test_every_account_agrees_when_packets_are_lost_or_late(
    tmp_path: Path, fault_rounds: int
) -> None:
    """What is cut or slowed elsewhere are connections; here TCP itself has to cope, or does not."""
    if missing := why_not():
        pytest.skip(f"this machine has no wires: {missing}")
    for start in range(0, fault_rounds, ROUNDS_OF_AN_INSTALLATION):
        folder = tmp_path / f"exchange-{start}"
        with Exchange(folder, brokers=2, connectors=2, with_wires=True) as exchange:
            for number in range(start, min(start + ROUNDS_OF_AN_INSTALLATION, fault_rounds)):
                one_round(exchange, SEED + number, Nemesis.spoil, WIRE_BOUNDS)
