"""Puts a directive that was handed in through its cases and gates, in a process of its own.

They take seconds of CPU, in which nothing else would be decided, and what is handed in may be hostile: the
process has bounds on time and memory, and ends when they are reached.
"""

import argparse
import asyncio
import contextlib
import json
import resource
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

_FINDINGS: Final = TypeAdapter(tuple[Finding, ...])


class Reviewer:
    """Reviews one directive at a time."""

    def __init__(self, vocabulary_folder: Path) -> None:
        self._vocabulary_folder = vocabulary_folder
        self._busy = asyncio.Lock()

    async def findings(self, read: Document, cases: str, registry: Registry) -> tuple[Finding, ...]:
        """What cases and gates find; raises Overloaded while another directive is looked at."""
        if self._busy.locked():
            raise Overloaded("REVIEW_BUSY", "another directive is being reviewed", retry_after_s=5)
        async with self._busy:
            with tempfile.TemporaryDirectory(prefix="countersign-review-") as scratch:
                folder = Path(scratch) / read.name
                folder.mkdir()
                (folder / MANIFEST_FILE).write_bytes(read.manifest_text.encode())
                (folder / RULES_FILE).write_bytes(read.rules_text.encode())
                (folder / CASES_FILE).write_bytes(cases.encode())
                file = Path(scratch) / "registry.json"
                file.write_text(registry.model_dump_json(round_trip=True))
                return await self._apart(folder, file)

    async def _apart(self, folder: Path, registry: Path) -> tuple[Finding, ...]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "policy.reviewing"),
            *(str(folder), str(self._vocabulary_folder), str(registry)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(2 * TIME_S_MAX):
                said, _ = await process.communicate()
            if process.returncode == 0:
                return _FINDINGS.validate_json(said)
        except (TimeoutError, ValidationError):
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        message = (
            f"its cases and gates could not be tried within {TIME_S_MAX} s of processor time and "
            f"{MEMORY_BYTES_MAX // 1024**3} GiB: make it smaller"
        )
        return (Finding("REVIEW", f"{folder.name}/{CASES_FILE}", "", message),)


def main() -> None:
    """`python -m policy.reviewing FOLDER VOCABULARY REGISTRY`: prints what was found, as JSON."""
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_S_MAX, TIME_S_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    parser = argparse.ArgumentParser(description="Puts a directive through its cases and gates.")
    for name in ("folder", "vocabulary", "registry"):
        parser.add_argument(name, type=Path)
    paths = parser.parse_args()
    registry = Registry.model_validate_json(paths.registry.read_bytes())
    said = review(paths.folder, Vocabulary.load(paths.vocabulary), registry)
    sys.stdout.write(json.dumps([asdict(finding) for finding in said.findings]))


if __name__ == "__main__":
    main()
