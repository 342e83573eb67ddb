"""The system behind the connector: what the connector asks of it, and how it may answer.

An adapter is any object that fulfils `FaceSystem`. Two exist: `reference.ReferenceSystem` and
`at_once.AnswersAtOnce`.
"""

from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

CANDIDATES_MAX = 50
"""Longest list that a search may ask for: the upper bound of the FBI's face recognition service."""

CANDIDATES_DEFAULT = 20
"""Length of the list when the search does not say: that service's default."""

Refusal = Literal["NOT_AN_IMAGE", "IMAGE_TOO_LARGE", "NO_FACE", "SEVERAL_FACES", "LOW_QUALITY"]
"""What can be wrong with a probe; each is a FailureReason of the answer."""

Sha256 = Annotated[bytes, Field(min_length=32, max_length=32)]


class Finding(BaseModel):
    """Base of what a system says of a probe: immutable, and checked when read from a process."""

    # Hex, so that digests survive JSON; NaN and infinity have no place in a score.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        ser_json_bytes="hex",
        val_json_bytes="hex",
    )


class Resemblance(Finding):
    """One gallery record that resembles the probe."""

    record: Annotated[str, Field(min_length=1, max_length=512)]
    """The holder's own name of the record. Never leaves the connector."""
    score: float
    image_sha256: Sha256


class FaceFound(Finding):
    """Where the face is in the probe, and what was measured on it."""

    x: int
    y: int
    width: int
    height: int
    detector_score: float
    inter_eye_distance_px: float
    sharpness: float


class Findings(Finding):
    """What a search of the gallery gave."""

    resemblances: Annotated[tuple[Resemblance, ...], Field(max_length=CANDIDATES_MAX)]
    """By descending score."""
    gallery_size: Annotated[int, Field(ge=0)]
    """Records in the gallery when it was searched."""
    face: FaceFound
    probe_sha256: Sha256
    """SHA-256 of the probe file."""
    clean_pixels_sha256: Sha256
    """SHA-256 of the pixels that were compared."""


class ProbeRefused(Exception):
    """The system cannot use this probe, and never will: asking again does not help."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason: Refusal = reason


class SystemFailed(Exception):
    """The system did not answer. Asking again may help."""


class SystemUnusable(Exception):
    """The system cannot be started as configured; the message tells the operator why."""


class FaceSystem(Protocol):
    """A face-recognition system with one gallery."""

    @property
    def algorithm(self) -> str:
        """The matcher and its version, as the candidate list states it."""

    async def start(self) -> int:
        """Make ready and return the number of records in the gallery; raises SystemUnusable."""

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        """Compare a picture file that nobody has looked at yet with the gallery.

        Raises ProbeRefused or SystemFailed.
        """

    async def close(self) -> None:
        """End whatever `start` began. Safe to call twice."""
