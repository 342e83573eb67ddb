"""Files that appear whole or not at all, and what makes them last through a power cut."""

import ctypes
import os
from pathlib import Path


def unfinished_name(path: Path) -> Path:
    """The name under which a file is written before it appears."""
    return path.with_name(f".{path.name}.new")


def put(path: Path, content: bytes, *, sync: bool = False, mode: int = 0o666) -> None:
    """A reader sees the file when it is complete, or the one before it. With `sync` it is on the disk.

    The mode is cut by the process's umask, and never wider, not even for a moment.
    """
    unfinished = unfinished_name(path)
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    unfinished.replace(path)
    if sync:
        sync_folder(path.parent)


def sync_all(folder: Path) -> None:
    """Have everything that was written to the folder's file system on the disk; raises OSError."""
    system = ctypes.CDLL(None, use_errno=True)
    if not hasattr(system, "syncfs"):
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if system.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have what was created, renamed and removed in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
