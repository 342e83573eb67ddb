"""Writes what an image holds, as CycloneDX: the packages of one requirement file, with their hashes.

Runs in the environment of requirements/sbom.txt (`make sbom`) and asks nothing of any network:

    write_sbom.py REQUIREMENTS PYTHON OUTPUT

PYTHON is the version in the image, such as 3.11: a requirement for another is not in it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parent.parent
SPECIFICATION: Final = "1.6"


def installed(lines: list[str], python: str) -> Iterator[str]:
    """The lines of the requirements that this Python on Linux installs, each with its hashes."""
    environment = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    taken = False
    for line in lines:
        if not line.startswith(" "):
            marker = Requirement(line.rstrip("\\ ")).marker
            taken = marker is None or marker.evaluate(environment)
        if taken:
            yield line


def main(requirements: Path, python: str, output: Path) -> int:
    """Write it; the exit code is the generator's, which validates what it writes."""
    lines = list(installed(requirements.read_text().splitlines(), python))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder) / requirements.name
        chosen.write_text("\n".join(lines) + "\n")
        done = subprocess.run(
            [Path(sys.executable).with_name("cyclonedx-py"), "requirements", chosen,
             "--pyproject", ROOT / "pyproject.toml", "--mc-type", "application",
             "--spec-version", SPECIFICATION, "--output-format", "JSON", "--output-reproducible",
             "--validate", "--output-file", output],
            check=False,
        )  # fmt: skip
    packages = sum(not line.startswith(" ") for line in lines)
    print(f"{output}: {packages} packages")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
