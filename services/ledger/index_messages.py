"""What the appending process and the follower say to each other. Pickled: both are ours, of one release."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.storage import Database


@dataclass(frozen=True)
class FollowerSettings:
    """First message to the process."""

    index: Path
    database: Database
    vkeys: tuple[str, ...]
    log_level: str = "INFO"


@dataclass(frozen=True)
class Ask:
    """A question, to be answered once so many entries are indexed; not waited for longer than told."""

    number: int
    size: int
    wait_s: float
    question: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """The answer to a question."""

    number: int
    value: Any


@dataclass(frozen=True)
class Behind:
    """The time was over before the index had come so far."""

    number: int
    indexed: int


@dataclass(frozen=True)
class Progress:
    """How many entries are indexed now."""

    indexed: int


@dataclass(frozen=True)
class Unusable:
    """Why no question can be answered; the process ends after it."""

    reason: str
    message: str
