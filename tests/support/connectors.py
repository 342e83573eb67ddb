"""The two ends of a connector for tests: systems to put behind it, and a bus to put before it."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from connector.answering import Answerer, Keys, Retries, Scale
from connector.orders import Orders
from connector.proof import OwnDirectives
from connector.runs import RunStore
from connector.system import (
    FaceFound,
    FaceSystem,
    Findings,
    ProbeRefused,
    Resemblance,
    SystemFailed,
)
from countersign.connector.v1.connector_pb2 import SignedAnswer, SignedOrder
from shared.bus import Delivery
from shared.clock import Clock
from shared.errors import Unavailable
from support.clocks import ClockThatStandsStill
from support.orders import GALLERY, SEARCH_ID, SYSTEM, OrderWorkshop, permits

CANDIDATE_KEY = b"k" * 32
FACE = FaceFound(
    x=1, y=2, width=30, height=40, detector_score=0.9, inter_eye_distance_px=50, sharpness=7
)


@dataclass
class SystemThatAnswers:
    """Returns three records in the wrong order, and remembers what it was asked."""

    probes: list[bytes] = field(default_factory=list)
    algorithm: str = "stand-in 1"

    async def start(self) -> int:
        return 3

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        self.probes.append(probe)
        return findings(probe)

    async def close(self) -> None:
        return None


@dataclass
class SystemThatFails(SystemThatAnswers):
    """Fails so many times, and then answers."""

    failures: int = 1

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        found = await super().search(probe, candidates_max)
        if len(self.probes) <= self.failures:
            raise SystemFailed("as told to")
        return found


@dataclass
class SystemThatBreaks(SystemThatAnswers):
    """Has a bug, which nothing expects."""

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        await super().search(probe, candidates_max)
        raise ZeroDivisionError


@dataclass
class SystemThatRefuses(SystemThatAnswers):
    """Finds no face in anything."""

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        await super().search(probe, candidates_max)
        raise ProbeRefused("NO_FACE")


@dataclass
class SystemThatWaits(SystemThatAnswers):
    """Answers when it is told to."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        self.asked.set()
        await self.may_answer.wait()
        return await super().search(probe, candidates_max)


@dataclass
class BusThatKeeps:
    """Keeps what is published; fails so many times first."""

    failures: int = 0
    published: list[tuple[str, bytes, str]] = field(default_factory=list)

    async def publish_durable(
        self, subject: str, data: bytes, message_id: str, template: str
    ) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("BUS_UNAVAILABLE", "as told to")
        self.published.append((subject, data, message_id))

    @property
    def answers(self) -> list[SignedAnswer]:
        """What was published, as answers."""
        return [SignedAnswer.FromString(data) for _, data, _ in self.published]


def findings(probe: bytes) -> Findings:
    """Three records, the best in the middle."""
    scores = (0.5, 0.9, 0.78)
    return Findings(
        resemblances=tuple(
            Resemblance(record=f"BOOKING-{place}", score=score, image_sha256=bytes([place]) * 32)
            for place, score in enumerate(scores)
        ),
        gallery_size=3,
        face=FACE,
        probe_sha256=hashlib.sha256(probe).digest(),
        clean_pixels_sha256=b"p" * 32,
    )


def answerer(
    workshop: OrderWorkshop, behind: FaceSystem, attempts: int = 3, clock: Clock | None = None
) -> Answerer:
    """An answerer that does not wait between attempts."""
    return Answerer(
        system=SYSTEM,
        gallery=GALLERY,
        keys=Keys(workshop.connector_answers, workshop.connector_probes, CANDIDATE_KEY),
        behind=behind,
        scale=Scale(minimum=-1, maximum=1, threshold=0.78, false_match_rate=0.01),
        retries=Retries(attempts=attempts, wait_initial_s=0, wait_max_s=0),
        clock=clock or ClockThatStandsStill(workshop.now),
    )


def orders(
    workshop: OrderWorkshop,
    behind: FaceSystem,
    runs: RunStore,
    bus: BusThatKeeps,
    own_directives: OwnDirectives = permits,
    now: datetime | None = None,
) -> Orders:
    """The order desk of a connector in the workshop's world."""
    return Orders(
        workshop.expectations(own_directives),
        answerer(workshop, behind),
        runs,
        bus,
        ClockThatStandsStill(now or workshop.now),
    )


def delivery(
    signed: SignedOrder | bytes, search_id: str = SEARCH_ID, deliveries: int = 1
) -> Delivery:
    """The order as the bus brings it."""

    async def in_progress() -> None:
        return None

    data = signed if isinstance(signed, bytes) else signed.SerializeToString()
    return Delivery(f"orders.{SYSTEM}.{search_id}", data, deliveries, 1, in_progress)
