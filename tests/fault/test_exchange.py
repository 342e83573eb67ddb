"""The whole exchange under mixed load while every part is broken: the accounts of all sides agree.

Real processes. A round loads one installation from two agencies, breaks five parts in turn, lets every search
end, and has the judge of `support.exchange_history` read the verified ledger, what the clients wrote down
and what the connector has. The seed of a failure is in its message, with what was done.
"""

import sys
from pathlib import Path
from typing import Final

import pytest

from support.exchange_history import counts_of, wrongs_of
from support.exchanges import Exchange
from support.nemesis import Bounds, Nemesis
from support.postgres import PostgresServer, PostgresUnderTest

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
STRIKES: Final = 5
"""In each round."""
REPLICAS: Final = (2, 1)
"""Brokers, and connectors of the one system, of the installations: in turns."""
ROUNDS_OF_AN_INSTALLATION: Final = 10
"""Then another is begun: each round verifies the whole ledger."""


def one_round(exchange: Exchange, seed: int, server: PostgresServer | None = None) -> None:
    nemesis = Nemesis(exchange, seed, BOUNDS)
    with exchange.load(seed, expires_after_s=EXPIRES_AFTER_S, settle_s=SETTLE_S) as load:
        try:
            nemesis.strike(load, STRIKES)
            if server is not None:
                nemesis.did.append("database killed")
                server.kill()
                load.wait_for(STRIKES, BOUNDS.hurt_s_max)
                server.start()
                load.wait_for(STRIKES, BOUNDS.rest_s_max)
        finally:
            exchange.heal()
    history = exchange.history()
    counts = counts_of(history)
    sys.stdout.write(f"{seed=} {nemesis.did} {dict(counts)}\n")
    wrongs = wrongs_of(history)
    assert not wrongs, "\n".join([f"{seed=}", *nemesis.did, f"{dict(counts)}", *wrongs[:50]])
    missing = {"answered", "failed", "expired", "withdrawn", "refused", "tried"} - counts.keys()
    assert not missing, f"{seed=}: nothing was {missing}"


def test_every_account_agrees_whatever_breaks(tmp_path: Path, fault_rounds: int) -> None:
    for start in range(0, fault_rounds, ROUNDS_OF_AN_INSTALLATION):
        replicas = REPLICAS[start // ROUNDS_OF_AN_INSTALLATION % len(REPLICAS)]
        folder = tmp_path / f"exchange-{start}"
        with Exchange(folder, brokers=replicas, connectors=replicas, with_links=True) as exchange:
            for number in range(start, min(start + ROUNDS_OF_AN_INSTALLATION, fault_rounds)):
                one_round(exchange, SEED + number)


def test_every_account_agrees_with_the_ledger_on_postgresql(
    tmp_path: Path, mortal_postgres_server: PostgresServer, fault_rounds: int
) -> None:
    if fault_rounds == 1:
        pytest.skip("the long form: `--fault-rounds 2` or more")
    mortal_postgres_server.make_database("exchange")
    database = PostgresUnderTest(mortal_postgres_server, "exchange", tmp_path)
    with Exchange(tmp_path / "exchange", brokers=2, connectors=2, database=database) as exchange:
        for number in range(fault_rounds):
            one_round(exchange, SEED + number, mortal_postgres_server)
