"""The secret that keeps officers from being guessed: `officers.secret`, which never leaves the owner's hands.

Whoever has it can try names and standings against the public commitments. Whoever loses it makes another, and
with the next version every officer is published anew.
"""

import os
import re
from pathlib import Path
from typing import Final

from registry.commitments import SECRET_BYTES
from registry.document import Document, read_file
from registry.findings import refused

SECRET_FILE: Final = "officers.secret"  # noqa: S105  # its name
_BYTES_MAX: Final = 256
_FORM: Final = re.compile(rb"[0-9a-f]{64}\n?")


def new() -> bytes:
    """The content of a new file."""
    return os.urandom(SECRET_BYTES).hex().encode() + b"\n"


def read(folder: Path) -> bytes | None:
    """The secret; None when the folder has none. Raises RegistryRefused."""
    path = folder / SECRET_FILE
    if not path.exists():
        return None
    content = read_file(path, _BYTES_MAX)
    if not _FORM.fullmatch(content):
        raise refused("SECRET", f"{folder.name}/{SECRET_FILE}", "is not 64 lower-case hex digits")
    return bytes.fromhex(content.decode())


def of(folder: Path, document: Document) -> bytes:
    """The secret that a document's officers are committed to with; raises RegistryRefused.

    Who has no officers needs none.
    """
    found = read(folder)
    if found is None and document.officers:
        message = "is missing: without it the officers could be guessed; `registry init` makes one"
        raise refused("SECRET_MISSING", f"{folder.name}/{SECRET_FILE}", message)
    return found or bytes(SECRET_BYTES)
