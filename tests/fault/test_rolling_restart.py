"""Every part that has replicas is restarted in turn while searches are made, and nobody notices."""

from pathlib import Path
from typing import Final

import pytest

from support.exchange_history import counts_of, in_vain, wrongs_of
from support.exchanges import Exchange
from support.nemesis import Bounds, Nemesis

pytestmark = [pytest.mark.fault, pytest.mark.promise(8), pytest.mark.timeout(1800)]

SEED: Final = 20201113
BOUNDS: Final = Bounds(hurt_s_max=1.0, rest_s_max=1.0)
SETTLE_S: Final = 45.0


def test_a_rolling_restart_is_felt_by_no_client(tmp_path: Path) -> None:
    with Exchange(tmp_path / "exchange", brokers=2, policies=2, connectors=2) as exchange:
        nemesis = Nemesis(exchange, SEED, BOUNDS)
        with exchange.load(
            SEED, expires_after_s=SETTLE_S, settle_s=2 * SETTLE_S, one_door=True, workers=2
        ) as load:
            nemesis.roll(load, [*exchange.brokers, *exchange.policies, *exchange.connectors])
        history = exchange.history()
    assert wrongs_of(history) == []
    assert history.failed == []
    assert in_vain(history, SETTLE_S / 2) == []
    assert counts_of(history)["answered"] > len(nemesis.did)
