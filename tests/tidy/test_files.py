"""What may not lie in the tree: registry hosts, paths of a machine, huge files, dead links."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.sources import ROOT, files, listed, texts

FILE_BYTES_MAX = 1_500_000
# The pictures of the demonstration are small; a photograph off a camera is a mistake.
PICTURE_BYTES_MAX = 200_000
PICTURES = {".jpg", ".jpeg", ".png"}

# Put together from parts, because this file is searched too.
REGISTRIES = "|".join(
    ["py" + "pi", "python" + "hosted", "npm" + "js", "deb" + "ian", "go" + "lang"]
)
REGISTRY_HOST = re.compile(
    rf"://[^ \"]*({REGISTRIES})"
    rf"|\b({REGISTRIES})\.(org|com|net|io)\b"
    r"|\bcrates" + r"\.io\b|\bmaven" + r"\.org\b"
)
MACHINE_PATH = re.compile(
    r"(^|[^a-z.])/(wo" + r"rk|fa" + r"rm|ro" + r"ot|ho" + r"me/\w+)/|/tm" + r"p/\w",
    re.MULTILINE,
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
REQUIREMENT = re.compile(r"[a-z0-9-]+==[\w.]+( ; [\w .<>='\"()!-]+)? \\")
REQUIREMENT_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern occurs in our texts; its `^` is the beginning of a line."""
    return [
        f"{name}:{number}"
        for name, text in texts()
        if pattern.search(text)
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def anchors(markdown: str) -> set[str]:
    """What a link into a page may point to, as code hosts derive it from the headings."""
    headings = HEADING.findall(FENCED.sub("", markdown))
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def test_no_file_names_a_package_registry() -> None:
    offenders = lines_with(REGISTRY_HOST)
    assert not offenders, listed(offenders)


def test_no_file_names_the_registry_of_this_machine() -> None:
    """Where packages come from is each reader's own setting."""
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    host = urlsplit(configured.stdout.strip()).hostname
    assert host is None or lines_with(re.compile(re.escape(host))) == []


def test_no_file_names_a_path_of_a_machine() -> None:
    offenders = lines_with(MACHINE_PATH)
    assert not offenders, listed(offenders)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda p: p.name
)
def test_requirements_are_pinned_by_hash_and_name_no_source(path: Path) -> None:
    offenders = [
        line
        for line in path.read_text().splitlines()
        if not REQUIREMENT.fullmatch(line) and not REQUIREMENT_HASH.fullmatch(line)
    ]
    assert not offenders, listed(offenders)


def test_large_files_stay_out() -> None:
    offenders = {}
    for path in files():
        allowed = PICTURE_BYTES_MAX if path.suffix in PICTURES else FILE_BYTES_MAX
        if path.stat().st_size > allowed:
            offenders[str(path.relative_to(ROOT))] = path.stat().st_size
    assert not offenders, listed(offenders)


def test_links_between_documents_resolve() -> None:
    offenders = []
    for path in files():
        if path.suffix != ".md":
            continue
        for link in LINK.findall(FENCED.sub("", path.read_text())):
            if "://" in link or link.startswith("mailto:"):
                continue
            file_name, _, anchor = link.partition("#")
            target = (path.parent / file_name).resolve() if file_name else path
            if not target.exists():
                offenders.append(f"{path.relative_to(ROOT)}: {link}")
            elif anchor and anchor not in anchors(target.read_text()):
                offenders.append(f"{path.relative_to(ROOT)}: {link} (no such heading)")
    assert not offenders, listed(offenders)
