"""Where the files are that come with the project: directives, the registry, the drawn faces."""

from pathlib import Path
from typing import Final

_DATA: Final = Path(__file__).resolve().parent.parent / "data"


def directives() -> Path:
    """The directives of the demonstration world."""
    installed = _DATA / "directives"
    # In a working copy they lie at its top, where their authors look for them.
    return installed if installed.is_dir() else _DATA.parents[2] / "directives"


def registry() -> Path:
    """The registry of the demonstration world."""
    return directives() / "demo-registry.toml"


def gallery_folder() -> Path:
    """The drawn faces that the reference matcher searches."""
    return _DATA / "faces" / "gallery"


def probes_folder() -> Path:
    """Other drawings of the same people, to search for."""
    return _DATA / "faces" / "probes"
