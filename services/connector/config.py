"""The connector's configuration."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from connector.runs import RETENTION_MIN
from shared.registry import Name
from shared.settings import (
    BusSettings,
    ConfigPath,
    KeptPath,
    ListenSettings,
    ProcessSettings,
    Section,
)


class ReferenceAdapter(Section):
    """The reference matcher over a folder of JPEG files."""

    adapter: Literal["reference"] = "reference"
    """Which kind of system is behind."""
    folder: ConfigPath
    """The gallery: one face in each .jpg or .jpeg file, also in folders below."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that compare, each with about 200 MB; one serves about 15 searches a second."""
    search_s_max: float = Field(default=20.0, gt=0, le=600)
    """Longest wait for one comparison; past it the worker is killed."""
    cpu_s_max: int = Field(default=10, ge=1, le=600)
    """CPU seconds for one comparison, enforced by the kernel."""
    memory_mb_max: int = Field(default=640, ge=64, le=8192)
    """Address space for one comparison, above what models and gallery take, enforced by the kernel."""
    eye_distance_px_min: float = Field(default=20.0, ge=0, le=1000)
    """Faces with eyes closer together are too small to compare."""


class AnswersAtOnceAdapter(Section):
    """FOR LOAD TESTS ONLY: fixed candidates, and no picture is compared."""

    adapter: Literal["answers-at-once"]
    """Which kind of system is behind."""


class ScaleSettings(Section):
    """How the scores of the system behind are to be read."""

    minimum: float = -1.0
    """The lowest score that the system gives."""
    maximum: float = 1.0
    """The highest: readers see where between the two a score lies."""
    threshold: float
    """From here on a candidate is called a possible match. Depends on matcher and gallery: measure it."""
    false_match_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of strangers that reach the threshold, as measured; leave out when it was not."""


class RetrySettings(Section):
    """How often a failing system is asked again before the search fails."""

    attempts: int = Field(default=3, ge=1, le=10)
    """The first included."""
    wait_initial_s: float = Field(default=0.5, ge=0, le=60)
    """Before the second attempt; doubled for each one after it."""
    wait_max_s: float = Field(default=5.0, ge=0, le=600)
    """The longest wait between two attempts."""


class ConnectorSettings(ProcessSettings):
    """One file, `connector.toml`."""

    trust_domain: str
    """SPIFFE trust domain of those who may ask for the connector's health."""
    listen: ListenSettings
    """The gRPC port: health and reflection, nothing else."""
    bus: BusSettings
    system: Name
    """The system that this connector stands before."""
    gallery: Name
    """The gallery that it searches. Orders for another are refused."""
    registry: ConfigPath
    """Registry of agencies, systems, galleries and officers (TOML): this connector's own copy."""
    trust_roots: ConfigPath
    """Public keys of the log, the broker and those who sign directives (JSON): this connector's own copy."""
    witnesses: ConfigPath | None = None
    """Policy of witnesses (C2SP tlog-policy): without its quorum under the decision no order is run.
    The broker then needs `witnesses_wait`. Left out, the ledger's own signature is enough."""
    directives: ConfigPath
    """Folder with the directives of the agency that runs the system; others' in it are not used."""
    answer_signing_key: ConfigPath
    """Ed25519 private key that signs answers."""
    probe_opening_key: ConfigPath
    """X25519 private key that probes are sealed to."""
    state: KeptPath
    """Folder for what the connector keeps: answers, embeddings, the key of candidate identifiers.
    All connectors of a system share one, or a search may run twice."""
    behind: Annotated[ReferenceAdapter | AnswersAtOnceAdapter, Field(discriminator="adapter")]
    scale: ScaleSettings
    retries: RetrySettings = RetrySettings()
    orders_in_flight_max: int = Field(default=16, ge=1, le=1024)
    """Orders worked on at once, in memory with their probes (2 MiB each at most)."""
    answers_kept: timedelta = Field(default=timedelta(days=30), ge=RETENTION_MIN)
    """How long sealed answers are kept for orders that are delivered again; longer than any order
    can be valid."""
