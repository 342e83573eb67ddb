"""The project's own files, as the tidy tests read them: parsed, and without generated code."""

import ast
import contextlib
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE = ("bench", "services", "tests", "tools")
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
# For a tree that is no clone: what the tools leave there is not ours to judge.
NOT_OURS = {"__pycache__", "build", "dist", "copy", "receipts", "record"}


@dataclass(frozen=True, eq=False)
class Source:
    """One Python file of ours."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Its path below the root, for messages."""
        return str(self.path.relative_to(ROOT))


def files_below(root: Path) -> tuple[Path, ...]:
    """All files that are tracked, or would be if one added everything now."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        paths = [root / name.decode() for name in listing.stdout.split(b"\0") if name]
    else:
        paths = [path for path in root.rglob("*") if _is_ours(path.relative_to(root))]
    return tuple(sorted(path for path in paths if path.is_file()))


@cache
def files() -> tuple[Path, ...]:
    """The project's."""
    return files_below(ROOT)


def _is_ours(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts[:-1] if part != ".ci")
    return not hidden and not NOT_OURS & set(path.parts)


def texts_below(root: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every file that is text."""
    for path in files() if root == ROOT else files_below(root):
        content = path.read_bytes()
        if b"\0" in content:
            continue
        # A key, a picture, a serialised message: there need not be a zero byte in it.
        with contextlib.suppress(UnicodeDecodeError):
            yield str(path.relative_to(root)), content.decode()


def texts() -> Iterator[tuple[str, str]]:
    """The project's."""
    return texts_below(ROOT)


@cache
def sources() -> tuple[Source, ...]:
    """All Python that people write."""
    found = []
    for path in files():
        top = path.relative_to(ROOT).parts[0]
        if path.suffix == ".py" and top in CODE and not GENERATED.search(path.name):
            text = path.read_text()
            found.append(Source(path, text, ast.parse(text, filename=str(path))))
    return tuple(found)


def below(folder: str) -> list[Source]:
    """The Python below one folder."""
    return [source for source in sources() if source.path.is_relative_to(ROOT / folder)]


def marked_promises() -> dict[int, set[str]]:
    """Which test files prove which promise, by their `@pytest.mark.promise(n)`."""
    proved: dict[int, set[str]] = {}
    for source in below("tests"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.promise"):
                for argument in node.args:
                    number = ast.literal_eval(argument)
                    proved.setdefault(number, set()).add(source.name)
    return proved


def listed(offenders: Collection[Any]) -> str:
    """All offenders, one a line; pytest's own account of a long list leaves most of it out."""
    if isinstance(offenders, Mapping):
        offenders = [f"{name}: {what}" for name, what in offenders.items()]
    return "\n" + "\n".join(sorted(str(one) for one in offenders))
