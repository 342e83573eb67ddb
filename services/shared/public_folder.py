"""Files that others read while they are written: each appears whole, and one sync is enough for many."""

import ctypes
import os
from pathlib import Path


def unfinished_name(path: Path) -> Path:
    """The name under which a file is written before it appears."""
    return path.with_name(f".{path.name}.new")


def put(path: Path, content: bytes, *, sync: bool = False) -> None:
    """A reader sees the file when it is complete, or the one before it. With `sync` it is on the disk."""
    unfinished = unfinished_name(path)
    with unfinished.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    unfinished.replace(path)
    if sync:
        _sync_folder(path.parent)


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
