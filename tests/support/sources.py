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


@dataclass(frozen=True)
class Definition:
    """A function or a class."""

    name: str
    place: str
    lines: int
    is_function: bool


@dataclass(frozen=True, eq=False)
class Source:
    """One Python file of ours. Kept, the trees of all would cost more to look through than to make again."""

    path: Path
    text: str
    docstring: str | None
    definitions: tuple[Definition, ...]

    @property
    def name(self) -> str:
        """Its path below the root, for messages."""
        return str(self.path.relative_to(ROOT))

    def nodes(self, *words: str) -> Iterator[tuple[str, ast.AST]]:
        """Every node that has a place, with that place; none where the text has none of these words."""
        if any(word in self.text for word in words):
            for node in ast.walk(ast.parse(self.text, filename=str(self.path))):
                yield f"{self.name}:{getattr(node, 'lineno', 1)}", node


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


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """The project's."""
    return tuple(texts_below(ROOT))


@cache
def sources() -> tuple[Source, ...]:
    """All Python that people write."""
    found = []
    for path in files():
        top = path.relative_to(ROOT).parts[0]
        if path.suffix == ".py" and top in CODE and not GENERATED.search(path.name):
            found.append(_read(path))
    return tuple(found)


def _read(path: Path) -> Source:
    text = path.read_text()
    tree = ast.parse(text, filename=str(path))
    definitions = tuple(
        Definition(
            node.name,
            f"{path.relative_to(ROOT)}:{node.lineno}",
            (node.end_lineno or node.lineno) - node.lineno + 1,
            not isinstance(node, ast.ClassDef),
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )
    return Source(path, text, ast.get_docstring(tree), definitions)


def below(folder: str) -> list[Source]:
    """The Python below one folder."""
    return [source for source in sources() if source.path.is_relative_to(ROOT / folder)]


@cache
def marked_promises() -> dict[int, set[str]]:
    """Which test files prove which promise, by their `@pytest.mark.promise(n)`."""
    proved: dict[int, set[str]] = {}
    for source in below("tests"):
        for _, node in source.nodes("mark.promise"):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", None) != "promise":
                continue
            if ast.unparse(node.func).endswith("mark.promise"):
                for argument in node.args:
                    number = ast.literal_eval(argument)
                    proved.setdefault(number, set()).add(source.name)
    return proved


def listed(offenders: Collection[Any]) -> str:
    """All offenders, one a line; pytest's own account of a long list leaves most of it out."""
    if isinstance(offenders, Mapping):
        offenders = [f"{name}: {what}" for name, what in offenders.items()]
    return "\n" + "\n".join(sorted(str(one) for one in offenders))
