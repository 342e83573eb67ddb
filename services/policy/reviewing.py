"""Puts a directive that was handed in through its cases and gates, in a process of its own.

They take seconds of CPU, in which nothing else would be decided, and what is handed in may be hostile: the
process has bounds on time and memory, and ends when they are reached.
"""

import argparse
import asyncio
import json
import logging
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from directive.document import CASES_FILE, MANIFEST_FILE, RULES_FILE, Document
from directive.findings import Finding
from directive.review import review
from directive.vocabulary import Vocabulary
from shared.errors import Overloaded
from shared.registry import Registry

TIME_S_MAX: Final = 60
"""The longest directive of the library takes three."""
MEMORY_BYTES_MAX: Final = 2 * 1024**3

log = logging.getLogger(__name__)

_FINDINGS: Final = TypeAdapter(tuple[Finding, ...])


class Reviewer:
    """Reviews one directive at a time."""

    def __init__(self, vocabulary_folder: Path) -> None:
        self._vocabulary_folder = vocabulary_folder
        self._busy = False

    async def findings(self, read: Document, cases: str, registry: Registry) -> tuple[Finding, ...]:
        """What cases and gates find; raises Overloaded while another directive is looked at."""
        if self._busy:
            raise Overloaded("REVIEW_BUSY", "another directive is being reviewed", retry_after_s=5)
        self._busy = True
        # To its end, also when its caller gives up: until then there is no room for another.
        done = asyncio.ensure_future(asyncio.to_thread(self._apart, read, cases, registry))
        done.add_done_callback(self._finished)
        return await asyncio.shield(done)

    def _finished(self, done: asyncio.Future[tuple[Finding, ...]]) -> None:
        self._busy = False
        if not done.cancelled():
            done.exception()  # a caller that has gone must not leave a warning

    def _apart(self, read: Document, cases: str, registry: Registry) -> tuple[Finding, ...]:
        """On a thread. Not by the event loop's own way to start a program (see `shared.children`)."""
        with tempfile.TemporaryDirectory(prefix="countersign-review-") as scratch:
            folder = Path(scratch) / read.name
            folder.mkdir()
            (folder / MANIFEST_FILE).write_bytes(read.manifest_text.encode())
            (folder / RULES_FILE).write_bytes(read.rules_text.encode())
            (folder / CASES_FILE).write_bytes(cases.encode())
            command = (sys.executable, "-P", "-m", "policy.reviewing")
            try:
                process = subprocess.run(  # noqa: S603  # ourselves
                    [*command, str(folder), str(self._vocabulary_folder)],
                    # How officers stand is in no file.
                    input=registry.model_dump_json(round_trip=True).encode(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    timeout=2 * TIME_S_MAX,
                    check=True,
                )
                return _FINDINGS.validate_json(process.stdout)
            except (subprocess.SubprocessError, ValidationError):
                log.warning("a review came to no end", extra={"fields": {"name": read.name}})
        message = (
            f"its cases and gates could not be tried within {TIME_S_MAX} s of processor time and "
            f"{MEMORY_BYTES_MAX // 1024**3} GiB: make it smaller"
        )
        return (Finding("REVIEW", f"{read.name}/{CASES_FILE}", "", message),)


def main() -> None:
    """`python -m policy.reviewing FOLDER VOCABULARY < REGISTRY`: prints what was found, as JSON."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_S_MAX, TIME_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    parser = argparse.ArgumentParser(description="Puts a directive through its cases and gates.")
    for name in ("folder", "vocabulary"):
        parser.add_argument(name, type=Path)
    paths = parser.parse_args()
    registry = Registry.model_validate_json(sys.stdin.buffer.read())
    said = review(paths.folder, Vocabulary.load(paths.vocabulary), registry)
    sys.stdout.write(json.dumps([asdict(finding) for finding in said.findings]))


if __name__ == "__main__":
    main()
