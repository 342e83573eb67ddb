"""Breaks parts of an exchange at random, one or two at a time, and says what it did.

What it does is drawn from its seed; how long it lasts is counted in what the clients are told meanwhile,
with a bound, so that a round goes as far on a slow machine as on a fast one.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from support.exchanges import Exchange, Load
from support.installations import ProcessUnderTest
from support.links import Link
from support.nats_clusters import NatsCluster
from support.wires import Wire

HURT_LINES: Final = (5, 60)
"""How much clients are told while something is broken."""
REST_LINES: Final = (20, 100)
"""And before the next."""
SLOWED_S: Final = 0.3
"""Each way, for whatever is carried at once."""
LOST: Final = 0.05
FAR_S: Final = 0.15
"""Each way: from one end of a continent to the other, and a detour."""


@dataclass(frozen=True)
class Bounds:
    """How long something stays broken, and whole before the next breaks, at most, in seconds."""

    hurt_s_max: float
    rest_s_max: float


def _killed(process: ProcessUnderTest, wait: Callable[[], None]) -> None:
    process.kill()
    wait()
    process.start()


def _frozen(process: ProcessUnderTest, wait: Callable[[], None]) -> None:
    process.freeze()
    try:
        wait()
    finally:
        process.thaw()


def _restarted(process: ProcessUnderTest, wait: Callable[[], None]) -> None:
    code = process.stop()
    assert code == 0, f"{process.part.name} ended with {code} when it was told to stop"
    process.start()
    wait()


HARMS: Final[Mapping[str, Callable[[ProcessUnderTest, Callable[[], None]], None]]] = {
    "killed": _killed,
    "frozen": _frozen,
    "restarted": _restarted,
}


LINK_HARMS: Final[Mapping[str, Callable[[Link], None]]] = {
    "cut off": lambda link: link.cut(),
    "slowed": lambda link: link.slow(SLOWED_S),
}
"""To the link between a process and the bus, or between two nodes of the bus."""


WIRE_HARMS: Final[Mapping[str, Callable[[Wire], None]]] = {
    "losing packets": lambda wire: wire.become(loses=LOST),
    "far away": lambda wire: wire.become(delays_s=FAR_S),
    "silent": lambda wire: wire.become(loses=1.0),
}
"""To the packets on such a link. Of a silent one nobody learns but by waiting: no connection ends."""


class Nemesis:
    """One who breaks things."""

    def __init__(self, exchange: Exchange, seed: int, bounds: Bounds) -> None:
        self._exchange = exchange
        self._chance = random.Random(seed)
        self._bounds = bounds
        self.did: list[str] = []

    def strike(self, load: Load, times: int) -> None:
        """So many parts, no part twice as often as another, each in a random way."""
        names: list[str] = []
        for _ in range(times):
            if not names:
                names = self._chance.sample(
                    [*self._exchange.processes], len(self._exchange.processes)
                )
            self._strike(load, names.pop())

    def each(self, load: Load, names: Sequence[str]) -> None:
        """Each of these, in a random order: as many harms as there are, and each to another one."""
        harms = self._chance.sample([*HARMS], len(HARMS))
        for name, harm in zip(self._chance.sample(names, len(names)), harms, strict=True):
            self._strike(load, name, harm)

    def one(self, load: Load, name: str) -> None:
        """This one, in a random way."""
        self._strike(load, name)

    def most(self, load: Load, names: Sequence[str]) -> None:
        """Kills all of these but one, at once."""
        doomed = self._chance.sample(names, len(names) - 1)
        load.wait_for(self._chance.randint(*REST_LINES), self._bounds.rest_s_max)
        self.did.append(f"{' and '.join(doomed)} killed")
        processes = [self._exchange.processes[name] for name in doomed]
        for process in processes:
            process.kill()
        load.wait_for(self._chance.randint(*HURT_LINES), self._bounds.hurt_s_max)
        for process in processes:
            process.launch()
        for process in processes:
            process.wait_until_ready()

    def spoil(self, load: Load) -> None:
        """The wire of each process in turn, in a random way; at last all of them lose packets."""
        links = self._exchange.links
        for name in self._chance.sample([*links], len(links)):
            self._spoil(load, [name], self._chance.choice([*WIRE_HARMS]))
        self._spoil(load, [*links], "losing packets")

    def _spoil(self, load: Load, names: Sequence[str], harm: str) -> None:
        def spoil(link: Link) -> None:
            assert link.wire is not None
            WIRE_HARMS[harm](link.wire)

        links = [self._exchange.links[name] for name in names]
        self._break_links(load, f"wire of {', '.join(names)} {harm}", links, spoil)

    def _break_links(
        self, load: Load, what: str, links: Sequence[Link], harm: Callable[[Link], None]
    ) -> None:
        """All of these links at once, for a while."""
        load.wait_for(self._chance.randint(*REST_LINES), self._bounds.rest_s_max)
        self.did.append(what)
        for link in links:
            harm(link)
        load.wait_for(self._chance.randint(*HURT_LINES), self._bounds.hurt_s_max)
        for link in links:
            link.mend()

    def part(self, load: Load, cluster: NatsCluster, name: str) -> None:
        """Cuts or slows all links of a node to the other nodes; clients reach it as before."""
        harm = self._chance.choice([*LINK_HARMS])
        self._break_links(
            load, f"{name} {harm} from the other nodes", cluster.links(name), LINK_HARMS[harm]
        )

    def roll(self, load: Load, names: Sequence[str]) -> None:
        """Restarts one after the other, in good order."""
        for name in names:
            self._strike(load, name, "restarted")

    def _strike(self, load: Load, name: str, harm: str = "") -> None:
        link = self._exchange.links.get(name)
        harm = harm or self._chance.choice([*HARMS, *(LINK_HARMS if link else ())])
        rest, hurt = self._chance.randint(*REST_LINES), self._chance.randint(*HURT_LINES)
        load.wait_for(rest, self._bounds.rest_s_max)
        self.did.append(f"{name} {harm}")

        def wait() -> None:
            load.wait_for(hurt, self._bounds.hurt_s_max)

        if link is not None and harm in LINK_HARMS:
            LINK_HARMS[harm](link)
            wait()
            link.mend()
            return
        process = self._exchange.processes[name]
        if process.has_ended:
            # Of itself, in doubt about a write; whoever runs it starts it again.
            process.kill()
            process.start()
        HARMS[harm](process, wait)
