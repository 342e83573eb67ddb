"""A connector whose system does what the probe says, and writes down what it was asked.

Run like a connector, with its configuration. A probe is JSON:
`{"search": id, "does": what, "wait_s": seconds}`. The list of what was asked lies beside the state.
"""

import asyncio
import functools
import hashlib
import json
import os
import time
from pathlib import Path

from connector.__main__ import running
from connector.config import ConnectorSettings
from connector.state import State
from connector.system import (
    FaceFound,
    FaceSystem,
    Findings,
    ProbeRefused,
    Resemblance,
    SystemFailed,
)
from shared.process import run_process

ASKED_FILE = "asked.jsonl"
GALLERY_SIZE = 7
_FACE = FaceFound(
    x=0, y=0, width=1, height=1, detector_score=0.5, inter_eye_distance_px=50, sharpness=1
)


class SystemThatStruggles:
    """Answers, takes its time, fails once or always, or refuses: as the probe says."""

    algorithm = "struggles 1"

    def __init__(self, asked: Path) -> None:
        self._asked = asked
        self._failed: set[str] = set()

    async def start(self) -> int:
        """Nothing to make ready."""
        return GALLERY_SIZE

    async def search(self, probe: bytes, candidates_max: int) -> Findings:
        """Does as told."""
        told = json.loads(probe)
        search_id, does = told["search"], told["does"]
        # One write to a file that is only appended to: a kill leaves whole lines, also of two processes.
        with self._asked.open("ab", buffering=0) as file:
            line = {"search_id": search_id, "at": time.time(), "pid": os.getpid()}
            file.write(json.dumps(line).encode() + b"\n")
        await asyncio.sleep(told["wait_s"])
        if does == "refuses":
            raise ProbeRefused("NO_FACE")
        if does == "fails" or (does == "fails once" and search_id not in self._failed):
            self._failed.add(search_id)
            raise SystemFailed("as told to")
        digest = hashlib.sha256(probe).digest()
        return Findings(
            resemblances=(Resemblance(record=search_id, score=0.5, image_sha256=digest),),
            gallery_size=GALLERY_SIZE,
            face=_FACE,
            probe_sha256=digest,
            clean_pixels_sha256=digest,
        )

    async def close(self) -> None:
        """Nothing was begun."""


def behind(_: ConnectorSettings, state: State) -> FaceSystem:
    """The system, whatever the configuration names."""
    return SystemThatStruggles(state.folder / ASKED_FILE)


def main() -> None:
    """Entry point."""
    run_process(
        "connector",
        "Does what probes say.",
        ConnectorSettings,
        functools.partial(running, behind_of=behind),
    )


if __name__ == "__main__":
    main()
