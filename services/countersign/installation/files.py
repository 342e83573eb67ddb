"""Writing files that another process reads, or that must outlive a crash half-way."""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

SECRET_MODE: Final = 0o600
GROUP_MODE: Final = 0o640
PUBLIC_MODE: Final = 0o644


def write_secret(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read. It is never open to others, not even for a moment."""
    _write(path, content, SECRET_MODE)


def write_public(path: Path, content: bytes) -> None:
    """Writes a file that anybody on the machine may read."""
    _write(path, content, PUBLIC_MODE)


def write_for_group(path: Path, content: bytes) -> None:
    """Writes a file for its owner and its group: that of the file in whose place it comes, with its mode."""
    try:
        before = path.stat()
    except FileNotFoundError:
        _write(path, content, GROUP_MODE)
        return
    _write(path, content, stat.S_IMODE(before.st_mode), before.st_gid)


def _write(path: Path, content: bytes, mode: int, group: int | None = None) -> None:
    """A crash before the rename leaves the old file and a stray temporary one; after it, the new."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if group is not None:
                os.fchown(descriptor, -1, group)
                os.fchmod(descriptor, mode)  # as it was, whatever is masked here
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
