"""Where the files of a log come from: a server, or a folder. Nothing in them is true yet.

Every answer is bounded in bytes and in time; a server that is away is asked again a few times.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiohttp
from yarl import URL

from shared.backoff import jittered
from shared.errors import Unavailable
from tlog.errors import TlogError
from tlog.merkle import HASH_BYTES
from tlog.note import NOTE_BYTES_MAX
from tlog.tiles import (
    CHECKPOINT_FILE,
    ENTRY_BYTES_MAX,
    TILE_BYTES,
    TILE_WIDTH,
    TileName,
    decode_bundle,
    decode_tile,
)

BUNDLE_BYTES_MAX: Final = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
CONNECT_S: Final = 5.0
ANSWER_S_MAX: Final = 60.0
"""The largest bundle over a slow line."""
PAUSES_S: Final = (0.2, 1.0, 3.0)
"""At most, between attempts: a server that restarts or is busy is not a failure of the log."""
REDIRECTS_MAX: Final = 3
CONNECTIONS_MAX: Final = 8
ABSENT: Final = (404, 410, 403)
"""Object stores say 403 of what is not there to those who may not list."""
BUSY: Final = (429, 500, 502, 503, 504)


Parts = TypeVar("Parts")


class CannotFollow(Exception):
    """What was read is not what was signed, or there is no reading or keeping it; `reason` is stable.

    The text names source, file and place.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Source(Protocol):
    """Gives files of a log by their paths."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    async def get(self, path: str, bytes_max: int) -> bytes | None:
        """A file's content, None when there is none; raises Unavailable or CannotFollow."""


class HttpSource:
    """A log, mirror or static server below a URL."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, pauses_s: tuple[float, ...] = PAUSES_S
    ) -> None:
        self.name = url.rstrip("/")
        self._session = session
        self._pauses_s = pauses_s

    async def get(self, path: str, bytes_max: int) -> bytes | None:
        """A file's content, None when there is none; raises Unavailable or CannotFollow."""
        failure = ""
        for pause_s in (*self._pauses_s, None):
            try:
                status, body = await self._ask(path, bytes_max)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = str(error) or type(error).__name__
            else:
                if status == 200:
                    return body
                if status in ABSENT:
                    return None
                failure = f"it answers {status}"
                if status not in BUSY:
                    break
            if pause_s is not None:
                await asyncio.sleep(jittered(pause_s))
        raise Unavailable("LOG_UNREACHABLE", f"{self.name}/{path}: {failure}")

    async def _ask(self, path: str, bytes_max: int) -> tuple[int, bytes]:
        url = URL(f"{self.name}/{path}", encoded=True)
        async with self._session.get(url, max_redirects=REDIRECTS_MAX) as answer:
            if answer.status != 200:
                return answer.status, b""
            body = bytearray()
            # What is unpacked counts, however small it came over the line.
            async for part in answer.content.iter_chunked(64 * 1024):
                body += part
                if len(body) > bytes_max:
                    raise CannotFollow(
                        "TOO_LARGE", f"{self.name}/{path}: more than {bytes_max} bytes"
                    )
            return 200, bytes(body)


@contextlib.asynccontextmanager
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session for HttpSource."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S_MAX, connect=CONNECT_S)
    connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
    headers = {"User-Agent": "countersign", "Accept-Encoding": "gzip, identity"}
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, headers=headers
    ) as session:
        yield session


class FolderSource:
    """A mirror's or an export's folder."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    async def get(self, path: str, bytes_max: int) -> bytes | None:
        """A file's content, None when there is none; raises CannotFollow."""
        try:
            content = await asyncio.to_thread(_read, self._folder / path, bytes_max + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            # The files are here: one that cannot be read is damaged, not away.
            raise CannotFollow("UNREADABLE", f"{self.name}/{path}: {error.strerror}") from error
        if len(content) > bytes_max:
            raise CannotFollow("TOO_LARGE", f"{self.name}/{path}: more than {bytes_max} bytes")
        return content


def _read(path: Path, bytes_max: int) -> bytes:
    if path.exists() and not path.is_file():
        # Another's folder may hold a pipe, which would be waited for without end.
        raise OSError(errno.EINVAL, "it is no file")
    with path.open("rb") as file:
        return file.read(bytes_max)


async def get_checkpoint(source: Source, path: str = CHECKPOINT_FILE) -> bytes:
    """The note that a source shows; raises CannotFollow when there is none, or Unavailable."""
    note = await source.get(path, NOTE_BYTES_MAX)
    if note is None:
        raise CannotFollow("NO_CHECKPOINT", f"{source.name}/{path}: there is no checkpoint")
    return note


async def get_hashes(source: Source, name: TileName) -> list[bytes]:
    """The hashes of a tile, cut to the width asked for; raises CannotFollow or Unavailable."""
    return await _parts(source, name, TILE_BYTES, decode_tile)


async def get_entries(source: Source, name: TileName) -> list[bytes]:
    """The entries of a bundle, cut to the width asked for; raises CannotFollow or Unavailable."""
    return await _parts(source, name, BUNDLE_BYTES_MAX, decode_bundle)


async def _parts(
    source: Source, name: TileName, bytes_max: int, decode: Callable[[bytes], list[bytes]]
) -> list[bytes]:
    """A partial file may have made way for the full one since."""
    found, content = name, await source.get(name.path, bytes_max)
    if content is None and name.width < TILE_WIDTH:
        found = TileName(name.level, name.number)
        content = await source.get(found.path, bytes_max)
    if content is None:
        raise CannotFollow("NOT_SERVED", f"{source.name}/{name.path}: the file is missing")
    try:
        parts = decode(content)
    except TlogError as error:
        raise CannotFollow("NOT_AS_SIGNED", f"{source.name}/{found.path}: {error}") from error
    if len(parts) != found.width:
        kind = "entries" if name.level is None else f"hashes of {HASH_BYTES} bytes"
        raise CannotFollow(
            "NOT_AS_SIGNED",
            f"{source.name}/{found.path}: holds {len(parts)} of {found.width} {kind}",
        )
    return parts[: name.width]
