"""A system that answers at once with the same candidates and looks at nothing. FOR LOAD TESTS ONLY.

It lets a load test measure everything but the matcher. It is never the default, says what it is in
the algorithm that every candidate list names, and warns when it starts.
"""

import functools
import hashlib
import logging

from connector.system import CANDIDATES_MAX, FaceFound, Findings, Resemblance

ALGORITHM = "answers-at-once (no pictures compared, load tests only)"

GALLERY_SIZE = 1000
"""Records that the gallery claims to hold."""

_FACE = FaceFound(
    x=0, y=0, width=1, height=1, detector_score=0.0, inter_eye_distance_px=0.0, sharpness=0.0
)

_NOT_LOOKED_AT = hashlib.sha256(b"not looked at").digest()
"""In place of digests of the probe: a system's own work on a picture is what a load test leaves out."""

_RESEMBLANCES = tuple(
    Resemblance(
        record=f"fixed/{place}",
        score=1.0 - place / 100,
        image_sha256=hashlib.sha256(b"fixed %d" % place).digest(),
    )
    for place in range(CANDIDATES_MAX)
)

_log = logging.getLogger(__name__)


class AnswersAtOnce:
    """Returns fixed candidates, whatever the probe."""

    @property
    def algorithm(self) -> str:
        """Says that nothing was compared."""
        return ALGORITHM

    async def start(self) -> int:
        """Warn, and claim a gallery."""
        _log.warning("no pictures are compared: the adapter answers-at-once is for load tests only")
        return GALLERY_SIZE

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        """The same candidates each time."""
        return _first(candidates_max)

    async def close(self) -> None:
        """Nothing was begun."""


@functools.cache  # nobody asks for more than CANDIDATES_MAX
def _first(count: int) -> Findings:
    # Not checked: all of it is written above.
    return Findings.model_construct(
        resemblances=_RESEMBLANCES[:count],
        gallery_size=GALLERY_SIZE,
        face=_FACE,
        probe_sha256=_NOT_LOOKED_AT,
        clean_pixels_sha256=_NOT_LOOKED_AT,
    )
