"""Writing files that another process reads, or that must outlive a crash half-way."""

import os
import secrets
from pathlib import Path
from typing import Final

SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644


def write_secret(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read. It is never open to others, not even for a moment."""
    _write(path, content, SECRET_MODE)


def write_public(path: Path, content: bytes) -> None:
    """Writes a file that anybody on the machine may read."""
    _write(path, content, PUBLIC_MODE)


def _write(path: Path, content: bytes, mode: int) -> None:
    """A crash before the rename leaves the old file and a stray temporary one; after it, the new."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
