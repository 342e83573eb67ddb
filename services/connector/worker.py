"""The process that decodes and compares: the only one that touches a picture's bytes.

Run as `python -m connector.worker` by the connector, which speaks to it over its standard input and
output (worker_messages). A picture that makes the decoder take too much memory or time, or crash,
ends this process and no other.

Invariants:
- The bounds are set after models and gallery are loaded and before the first probe is read.
- Nothing about a probe is printed, logged or written to a file.
"""

import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO

import cv2

from connector.gallery import Gallery, enrol
from connector.matcher import (
    ALGORITHM,
    EMBEDDING_LENGTH,
    MODELS,
    PIPELINE_VERSION,
    Embedding,
    FaceMatcher,
    find_models,
)
from connector.system import CANDIDATES_MAX, Findings, ProbeRefused, SystemUnusable
from connector.worker_messages import (
    LENGTH,
    PROBE_HEADER,
    Bounds,
    Decoded,
    Failed,
    Found,
    Ready,
    Refused,
    Reply,
    Unusable,
    WorkerSettings,
    write_reply,
)
from shared.images import FILE_BYTES_MAX, CleanImage, ImageTooLarge, NotAnImage, clean

MESSAGE_BYTES_MAX = FILE_BYTES_MAX + 1024
"""Longest message accepted; the connector itself sends nothing longer."""


class FaceDescriber:
    """The matcher with the least quality that it compares."""

    def __init__(self, matcher: FaceMatcher, eye_distance_px_min: float) -> None:
        self.matcher = matcher
        self.eye_distance_px_min = eye_distance_px_min

    @property
    def key(self) -> str:
        """Changes with the models, the way to the vector, and what is good enough to enrol."""
        hashes = " ".join(f"{name}={sha256}" for name, sha256 in sorted(MODELS.items()))
        return f"{ALGORITHM} v{PIPELINE_VERSION} {hashes} eyes>={self.eye_distance_px_min}"

    @property
    def length(self) -> int:
        """Numbers in a vector."""
        return EMBEDDING_LENGTH

    def describe(self, image: CleanImage) -> Embedding:
        """The face as a vector of length one; raises ProbeRefused."""
        face = self.matcher.only_face(image, self.eye_distance_px_min)
        return self.matcher.embed(image, face)


class Worker:
    """Answers one probe after the other."""

    def __init__(self, describer: FaceDescriber, gallery: Gallery, replies: BinaryIO) -> None:
        self._describer = describer
        self._gallery = gallery
        self._replies = replies

    def answer(self, probe: bytes, candidates_max: int) -> Reply:
        """The reply that ends this probe's search."""
        try:
            image = clean(probe)
            self.say(Decoded())
            return Found(findings=self._compare(image, candidates_max))
        except NotAnImage:
            return Refused(reason="NOT_AN_IMAGE")
        except (ImageTooLarge, MemoryError):
            return Refused(reason="IMAGE_TOO_LARGE")
        except ProbeRefused as refusal:
            return Refused(reason=refusal.reason)
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                return Refused(reason="IMAGE_TOO_LARGE")
            return Failed()

    def _compare(self, image: CleanImage, candidates_max: int) -> Findings:
        face = self._describer.matcher.only_face(image, self._describer.eye_distance_px_min)
        vector = self._describer.matcher.embed(image, face)
        return Findings(
            resemblances=self._gallery.search(vector, min(candidates_max, CANDIDATES_MAX)),
            gallery_size=len(self._gallery.records),
            face=face.found,
            probe_sha256=image.file_sha256,
            clean_pixels_sha256=image.pixels_sha256,
        )

    def say(self, reply: Reply) -> None:
        """Send a reply at once."""
        self._replies.write(write_reply(reply))
        self._replies.flush()


def bound_memory(bounds: Bounds) -> int:
    """Bound the address space, and forbid files and core dumps; return the space in use now.

    The bound is counted from what is in use, because OpenCV and its models reserve several hundred
    megabytes of addresses which differ from version to version.
    """
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    in_use = int(pages) * resource.getpagesize()
    most = in_use + bounds.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # A core dump would write the probe to disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return in_use


def bound_cpu(bounds: Bounds) -> None:
    """Give the search that follows its CPU time; the kernel ends the process when it is used up."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = int(usage.ru_utime + usage.ru_stime)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    # One more second, since what is used was rounded down.
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + 1 + bounds.cpu_s, most))


def read_message(requests: BinaryIO) -> bytes | None:
    """The next message, or None when the connector closed the pipe."""
    header = requests.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(header)
    if length > MESSAGE_BYTES_MAX:
        return None
    message = requests.read(length)
    return message if len(message) == length else None


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Load, set the bounds, then answer until the connector closes the pipe."""
    first = read_message(requests)
    if first is None:
        return
    settings = WorkerSettings.model_validate_json(first)
    try:
        describer = FaceDescriber(FaceMatcher(find_models()), settings.eye_distance_px_min)
        gallery = enrol(settings.gallery, settings.store, describer)
    except (SystemUnusable, OSError) as error:
        replies.write(write_reply(Unusable(message=str(error)[:2000])))
        replies.flush()
        return
    worker = Worker(describer, gallery, replies)
    loaded_bytes = bound_memory(settings.bounds)
    worker.say(
        Ready(
            gallery_size=len(gallery.records),
            unusable=gallery.unusable,
            loaded_bytes=loaded_bytes,
        )
    )
    while (message := read_message(requests)) is not None:
        (candidates_max,) = PROBE_HEADER.unpack_from(message)
        bound_cpu(settings.bounds)
        worker.say(worker.answer(message[PROBE_HEADER.size :], candidates_max))


def main() -> None:
    """Keep the real standard output for replies, so that no library can write between them."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
