"""The units in deploy/systemd, read; and their command lines, for a machine that lies in a folder."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from support.sources import ROOT

FOLDER: Final = ROOT / "deploy" / "systemd"
PROGRAMS: Final = Path("/opt/countersign/bin")
CONFIGURATION: Final = Path("/etc/countersign")
STATE: Final = Path("/var/lib/countersign")
CONFINED: Final = ROOT / "tests" / "support" / "confined.py"


@dataclass(frozen=True)
class Unit:
    """One unit file."""

    path: Path
    settings: tuple[tuple[str, str, str], ...]
    """Section, name and value, in order."""

    @classmethod
    def read(cls, path: Path) -> "Unit":
        """Of a file; ours use no continuation lines."""
        section, settings = "", []
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                name, _, value = line.partition("=")
                settings.append((section, name, value))
        return cls(path, tuple(settings))

    @property
    def name(self) -> str:
        """Without what all have in common: `broker`."""
        return self.path.stem.removeprefix("countersign-")

    def all(self, name: str) -> list[str]:
        """Every value of this name."""
        return [value for _, one, value in self.settings if one == name]

    def one(self, name: str) -> str:
        """Its only value."""
        (value,) = self.all(name)
        return value

    @property
    def command(self) -> list[str]:
        """What it runs."""
        return shlex.split(self.one("ExecStart"))

    def environment(self, credentials: Path) -> dict[str, str]:
        """What it adds, with the credentials in this folder."""
        pairs = [shlex.split(value)[0].partition("=") for value in self.all("Environment")]
        return {name: value.replace("%d", str(credentials)) for name, _, value in pairs}

    @property
    def credentials(self) -> dict[str, Path]:
        """The files that it has copied, by the name of the copy."""
        pairs = [value.partition(":") for value in self.all("LoadCredential")]
        return {name: Path(path) for name, _, path in pairs}

    @property
    def states(self) -> list[Path]:
        """The folders that are its own."""
        return [
            Path("/var/lib") / one for value in self.all("StateDirectory") for one in value.split()
        ]

    def run_in(self, configuration: Path, folder: Path, *, confined: bool) -> tuple[str, ...]:
        """Its command, of a machine whose configuration lies elsewhere; `confined` as its filters have it."""
        program, *arguments = self.command
        moved = [one.replace(str(CONFIGURATION), str(configuration)) for one in arguments]
        added = [
            f"{key}={value}" for key, value in self.environment(configuration / "keys").items()
        ]
        command = [
            "/usr/bin/env",
            *added,
            str(Path(sys.executable).with_name(Path(program).name)),
            *moved,
        ]
        if not confined:
            return tuple(command)
        rules = folder / f"{self.name}.json"
        families = self.one("RestrictAddressFamilies").split()
        rules.write_text(json.dumps({"calls": sorted(self.calls), "families": families}))
        return (sys.executable, "-I", str(CONFINED), str(rules), *command)

    @property
    def calls(self) -> set[str]:
        """The system calls that it allows."""
        allowed: set[str] = set(_set_of("@default"))
        for value in self.all("SystemCallFilter"):
            named = {call for one in value.removeprefix("~").split() for call in _set_of(one)}
            allowed = allowed - named if value.startswith("~") else allowed | named
        return allowed


@cache
def _set_of(name: str) -> frozenset[str]:
    """The calls of a set of systemd's, and of the sets in it."""
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        capture_output=True,
        text=True,
        check=True,
    )
    found: set[str] = set()
    for line in said.stdout.splitlines()[1:]:
        call = line.strip()
        if call and not call.startswith("#"):
            found |= _set_of(call) if call.startswith("@") else {call}
    return frozenset(found)


def units() -> list[Unit]:
    """Every service."""
    return [Unit.read(path) for path in sorted(FOLDER.glob("*.service"))]


def unit(name: str) -> Unit:
    """One of them."""
    return Unit.read(FOLDER / f"countersign-{name}.service")


def has_systemd() -> bool:
    """Whether its tools are here; tools/need_programs.sh installs them."""
    return shutil.which("systemd-analyze") is not None
