"""The reference matcher's gallery: a folder of JPEG files, one face in each.

Embeddings are kept on disk under the hashes of the picture and of the models, so that a start
computes only what is new, and a changed picture or model never meets an old embedding. The store is
a cache: when it is missing or damaged, it is made again from the pictures.

Embeddings are biometric data. The store has mode 0600 and belongs beside the pictures.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from connector.system import ProbeRefused, Resemblance, SystemUnusable
from shared.images import FILE_BYTES_MAX, CleanImage, ImageRefused, clean

Embedding: TypeAlias = NDArray[np.float32]

RECORDS_MAX = 1_000_000
"""Most pictures in one folder: their embeddings take 512 MB, and a search of them 0.2 s."""

SUFFIXES = (".jpg", ".jpeg")


class Describer(Protocol):
    """Turns the one face in a picture into a vector; raises ProbeRefused."""

    @property
    def key(self) -> str:
        """Names the models and the way to the vector: vectors of different keys never meet."""

    @property
    def length(self) -> int:
        """Numbers in a vector."""

    def describe(self, image: CleanImage) -> Embedding:
        """The face as a vector of length one."""


@dataclass(frozen=True)
class Gallery:
    """Enrolled records, searchable by likeness."""

    records: tuple[str, ...]
    """Each picture's path below the folder, in order."""
    image_sha256s: tuple[bytes, ...]
    vectors: NDArray[np.float32]
    """One row to a record."""
    unusable: int
    """Pictures left out, since they do not show exactly one usable face."""

    def search(self, probe: Embedding, candidates_max: int) -> tuple[Resemblance, ...]:
        """The records most like the probe, by descending score, then by name."""
        scores = self.vectors @ probe
        order = np.argsort(-scores, kind="stable")[:candidates_max]
        return tuple(
            Resemblance(
                record=self.records[place],
                score=float(scores[place]),
                image_sha256=self.image_sha256s[place],
            )
            for place in map(int, order)
        )


class Store:
    """Embeddings by the SHA-256 of their picture; None where the picture was unusable."""

    def __init__(self, path: Path, length: int) -> None:
        self._path = path
        self._length = length
        self.vectors: dict[bytes, Embedding | None] = self._read()

    def _read(self) -> dict[bytes, Embedding | None]:
        try:
            digest, contents = _split(self._path.read_bytes())
        except OSError:
            return {}
        if hashlib.sha256(contents).digest() != digest:
            return {}
        try:
            with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
                hashes, usable, vectors = arrays["hashes"], arrays["usable"], arrays["vectors"]
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            return {}
        if vectors.ndim != 2 or vectors.shape[1] != self._length:
            return {}
        return {
            hash_.tobytes(): vector if good else None
            for hash_, good, vector in zip(hashes, usable, vectors, strict=True)
        }

    def keep(self, vectors: dict[bytes, Embedding | None]) -> None:
        """Replace what is stored. A crash leaves either the old file or the new one."""
        missing = np.zeros(self._length, np.float32)
        out = io.BytesIO()
        np.savez(
            out,
            hashes=np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, 32),
            usable=np.array([vector is not None for vector in vectors.values()], bool),
            vectors=np.array(
                [missing if vector is None else vector for vector in vectors.values()], np.float32
            ).reshape(-1, self._length),
        )
        contents = out.getvalue()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Two workers may write at once: each has its own new file, and the last rename wins.
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(contents).digest() + contents)
        new.replace(self._path)
        self.vectors = vectors


def enrol(folder: Path, store_folder: Path, describer: Describer) -> Gallery:
    """Read the folder, computing only the embeddings that the store does not have.

    Raises SystemUnusable when the folder cannot be read or holds no usable picture.
    """
    name = hashlib.sha256(describer.key.encode()).hexdigest()[:16]
    store = Store(store_folder / f"embeddings-{name}.bin", describer.length)
    vectors: dict[bytes, Embedding | None] = {}
    records: list[str] = []
    image_sha256s: list[bytes] = []
    unusable = 0
    for record, file in _pictures(folder):
        sha256 = hashlib.sha256(file).digest()
        if sha256 not in vectors:
            known = sha256 in store.vectors
            vectors[sha256] = store.vectors[sha256] if known else _describe(describer, file)
        if vectors[sha256] is None:
            unusable += 1
            continue
        records.append(record)
        image_sha256s.append(sha256)
    if not records:
        raise SystemUnusable(f"the gallery folder {folder} holds no picture with exactly one face")
    if vectors.keys() != store.vectors.keys():
        # Also drops what left the folder: a picture that was expunged leaves no embedding behind.
        store.keep(vectors)
    rows = [vector for sha256 in image_sha256s if (vector := vectors[sha256]) is not None]
    return Gallery(tuple(records), tuple(image_sha256s), np.array(rows, np.float32), unusable)


def record_names(folder: Path) -> list[str]:
    """Each picture's path below the folder, in order; raises SystemUnusable."""
    try:
        paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise SystemUnusable(f"cannot read the gallery folder {folder}: {error}") from error
    if len(paths) > RECORDS_MAX:
        raise SystemUnusable(f"the gallery folder {folder} has more than {RECORDS_MAX} pictures")
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _pictures(folder: Path) -> Iterator[tuple[str, bytes]]:
    for record in record_names(folder):
        try:
            # One byte more than accepted is enough for `clean` to refuse it.
            with (folder / record).open("rb") as file:
                contents = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            raise SystemUnusable(f"cannot read the gallery picture {record}: {error}") from error
        yield record, contents


def _describe(describer: Describer, file: bytes) -> Embedding | None:
    try:
        return describer.describe(clean(file))
    except (ImageRefused, ProbeRefused):
        return None


def _split(file: bytes) -> tuple[bytes, bytes]:
    return file[:32], file[32:]
