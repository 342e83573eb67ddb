"""Judges an add-checkpoint request in the order that C2SP tlog-witness gives, and cosigns.

Invariants:
- what was cosigned is on disk before the answer exists, so no answer can be of a tree that a restart
  has forgotten;
- reading the held checkpoint, judging against it and replacing it are one transaction, so two
  requests at once cannot roll the witness back;
- the times of cosignatures of one log never go backwards.
"""

import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from shared.clock import Clock
from tlog.checkpoint import Checkpoint
from tlog.cosignature import Cosigner, LogVerifier
from tlog.errors import TlogError
from tlog.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from tlog.note import UnverifiedNote, decode_base64
from tlog.witness_protocol import (
    SIZE_CONTENT_TYPE,
    AddCheckpoint,
    monitoring_path,
    write_size,
)
from witness.store import Cosigned, Evidence, Store

log = logging.getLogger(__name__)

PLAIN: Final = "text/plain; charset=utf-8"
CLOCK_BEHIND_S_MAX: Final = 60
"""How far the machine's clock may lie behind our last cosignature, as after a correction by time
service; up to it the last time is given again. Further behind, one of the two is wrong."""


@dataclass(frozen=True)
class Answer:
    """What goes back: status, body and type."""

    status: int
    body: str
    content_type: str = PLAIN


class Refused(Exception):
    """The request is answered with this, and nothing is cosigned."""

    def __init__(self, status: int, why: str, content_type: str = PLAIN) -> None:
        super().__init__(why)
        self.answer = Answer(status, why if why.endswith("\n") else f"{why}\n", content_type)


class Witness:
    """Cosigns checkpoints of the logs that it knows. Used by one thread at a time."""

    def __init__(
        self,
        logs: Mapping[str, Sequence[LogVerifier]],
        cosigners: Sequence[Cosigner],
        store: Store,
        clock: Clock,
    ) -> None:
        self._logs = logs
        self._cosigners = cosigners
        self._store = store
        self._clock = clock
        self._origins = {monitoring_path(origin): origin for origin in logs}

    def add_checkpoint(self, body: bytes) -> Answer:
        """Judge a request and give the answer to it. Raises sqlite3.Error when nothing can be stored."""
        try:
            request = _Request.read(body)
            verifiers = self._logs.get(request.origin)
            if verifiers is None:
                raise Refused(404, "this witness does not know the log")
            note = _signed_note(request, verifiers)
        except Refused as refused:
            return refused.answer
        with self._store.transaction():
            return self._judge(request, note)

    def _judge(self, request: "_Request", note: str) -> Answer:
        """What follows needs the lock: nobody else may cosign between reading and storing."""
        held = self._store.cosigned(request.origin)
        try:
            checkpoint = _consistent(request, held)
            time_s = self._time_s(request.origin, held)
        except Refused as refused:
            self._keep_evidence(request, note, held, refused.answer.status)
            return refused.answer
        lines = "".join(one.cosign(checkpoint, time_s) for one in self._cosigners)
        cosigned = Cosigned(checkpoint.size, checkpoint.root, time_s, f"{note}{lines}")
        self._store.set_cosigned(request.origin, cosigned)
        return Answer(200, lines)

    def _time_s(self, origin: str, held: Cosigned | None) -> int:
        now_s = int(self._clock.now().timestamp())
        if held is None or now_s >= held.time_s:
            return now_s
        behind_s = held.time_s - now_s
        if behind_s > CLOCK_BEHIND_S_MAX:
            fields = {"behind_s": behind_s, "origin": origin}
            log.error("clock is behind what was cosigned", extra={"fields": fields})
            raise Refused(503, "the witness's clock is behind its last cosignature")
        return held.time_s

    def _keep_evidence(
        self, request: "_Request", note: str, held: Cosigned | None, status: int
    ) -> None:
        """Keep what the log signed and should perhaps not have signed."""
        conclusive = (
            held is not None and request.size == held.size and request.root != held.root
        ) or (request.size == 0 and request.root != EMPTY_ROOT)
        if not conclusive and status != 422:
            return
        evidence = Evidence(
            origin=request.origin,
            size=request.size,
            root=request.root,
            conclusive=conclusive,
            time_s=int(self._clock.now().timestamp()),
            note=note,
            held="" if held is None else held.note,
        )
        if not self._store.add_evidence(evidence):
            return
        fields = {
            "origin": request.origin,
            "size": request.size,
            "root": request.root.hex(),
            "held_size": 0 if held is None else held.size,
        }
        if conclusive:
            log.critical("log signed two histories", extra={"fields": fields})
        else:
            log.warning("signed checkpoint refused", extra={"fields": fields})

    def newest(self, path: str) -> str | None:
        """Give the newest cosigned checkpoint by its path of the monitoring endpoint, None for none."""
        origin = self._origins.get(path)
        cosigned = None if origin is None else self._store.cosigned(origin)
        return None if cosigned is None else cosigned.note

    def sizes(self) -> dict[str, int]:
        """Give the size cosigned last of each log."""
        held = {origin: self._store.cosigned(origin) for origin in self._logs}
        return {origin: 0 if one is None else one.size for origin, one in held.items()}


@dataclass(frozen=True)
class _Request:
    """A well-formed request. Nothing in it is verified."""

    old_size: int
    proof: Sequence[bytes]
    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...]
    note: UnverifiedNote

    @classmethod
    def read(cls, body: bytes) -> "_Request":
        """Read a body; raises Refused with 400."""
        try:
            return cls.of(AddCheckpoint.parse(body))
        except TlogError as error:
            claim = _claim_of_an_empty_tree(body)
            if claim is None:
                raise Refused(400, str(error)) from error
            return claim

    @classmethod
    def of(cls, request: AddCheckpoint) -> "_Request":
        """Take what is judged out of a request."""
        note, checkpoint = request.unverified_note, request.unverified_checkpoint
        return cls(
            request.old_size,
            request.proof,
            checkpoint.origin,
            checkpoint.size,
            checkpoint.root,
            checkpoint.extensions,
            note,
        )


def _claim_of_an_empty_tree(body: bytes) -> _Request | None:
    """Read a request whose one fault is a root that no tree of size 0 has.

    It is not malformed: if a log has signed it, it has signed what is false, which is refused with 422
    and kept.
    """
    head, _, note = body.partition(b"\n\n")
    lines = note.split(b"\n")
    if len(lines) < 3 or lines[1] != b"0":
        return None
    mended = [*lines[:2], base64.b64encode(EMPTY_ROOT), *lines[3:]]
    try:
        root = decode_base64(lines[2].decode("ascii", "replace"), "the root")
        request = AddCheckpoint.parse(head + b"\n\n" + b"\n".join(mended))
        original = UnverifiedNote.parse(note)
    except TlogError:
        return None
    if len(root) != HASH_BYTES:
        return None
    return replace(_Request.of(request), root=root, note=original)


def _signed_note(request: _Request, verifiers: Sequence[LogVerifier]) -> str:
    """Give the note with the log's lines only; raises Refused unless the log signed it."""
    try:
        signed = request.note.verify(verifiers)
    except TlogError as error:
        raise Refused(403, str(error)) from error
    known = {(one.name, one.key_id) for one in signed}
    # As keys, so that a line that is there twice is kept once.
    lines = {one.line: None for one in request.note.signatures if (one.name, one.key_id) in known}
    return f"{request.note.text}\n{''.join(lines)}"


def _consistent(request: _Request, held: Cosigned | None) -> Checkpoint:
    """Give the checkpoint if it extends the held one; raises Refused with 409 or 422."""
    held_size = 0 if held is None else held.size
    if request.old_size != held_size:
        raise Refused(409, write_size(held_size).decode(), SIZE_CONTENT_TYPE)
    try:
        checkpoint = Checkpoint(request.origin, request.size, request.root, request.extensions)
        if held is not None and held_size > 0:
            verify_consistency(held_size, request.size, held.root, request.root, request.proof)
        elif request.proof:
            raise TlogError("no proof leads from size 0")
    except TlogError as error:
        raise Refused(422, str(error)) from error
    return checkpoint
