"""Takes in what owners register: tries it on what counts, then puts it on record, entry after entry.

Invariants:
- Nothing is put on record that would not count, or by which a directive would name what is no more.
- The owner's signature is what counts, not who hands it in.
- What is on record in part counts for nothing; the same publication again begins anew.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.event_pb2 import RegistryStatement
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import Receipt
from directive.entities import EntitiesError
from directive.findings import DirectiveRefused
from directive.self_test import EngineUntrustworthy
from policy.documents import REGISTRATIONS, Documents
from policy.following import Following
from policy.recording import Recording
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.signature import Statement
from shared.errors import Broken, FieldViolation, InvalidRequest, NotFound, NotReady

INTERLEAVED_MAX: Final = 1000
"""Documents of others that may come between the parts of one publication."""


class Registering:
    """Publishes for whoever calls."""

    def __init__(self, following: Following, recording: Recording) -> None:
        self._following = following
        self._recording = recording

    async def get(self, owner: str) -> pb.GetRegistrationResponse:
        """What counts of an owner; raises NotFound."""
        await self._following.catch_up()
        published = _fold(self._following.documents).published(owner)
        if published is None:
            raise NotFound("REGISTRATION_UNKNOWN", f"{owner} has registered nothing")
        response = pb.GetRegistrationResponse(statement=_as_proto(published.statement))
        response.commitments.extend(sorted(published.commitments))
        return response

    async def publish(
        self, request: pb.PublishRegistrationRequest
    ) -> pb.PublishRegistrationResponse:
        """Put a registration on record; raises ServiceError."""
        said = _statement(request.entries)
        await self._following.catch_up()
        before = _fold(self._following.documents).published(said.owner)
        if before is not None and _as_proto(before.statement) == _unsigned(said):
            return pb.PublishRegistrationResponse(statement=said)
        await asyncio.to_thread(self._try, request.entries)
        receipts = [await self._record(pending) for pending in request.entries]
        await self._following.catch_up()
        after = _fold(self._following.documents).published(said.owner)
        if after is None or _as_proto(after.statement) != _unsigned(said):
            # Somebody else's document came between, beside which it does not pass: it says so again.
            await asyncio.to_thread(self._try, request.entries)
            raise Broken("LEDGER_ANSWER", "the registration was recorded and does not count")
        return pb.PublishRegistrationResponse(statement=said, receipts=receipts)

    def _try(self, entries: Sequence[PendingEntry]) -> None:
        """Raise InvalidRequest unless the registration would count, and all that is in force beside it."""
        tried = self._following.documents.copy()
        try:
            for pending in entries:
                head = tried.holdings.head
                pending.entry.ClearField("previous_document")
                if head is not None:
                    pending.entry.previous_document = head
                openings = {one.field: one.value for one in pending.sensitive}
                # Whatever its place will be, each comes after the one before.
                tried.apply(0 if head is None else head + 1, pending.entry, openings)
            if tried.is_under_way(_statement(entries).owner):
                raise _invalid("entries", "are not a whole publication")
            tried.check_directives()
            tried.made()
        except RegistryRefused as refused:
            raise refused.as_error from refused
        except DirectiveRefused as refused:
            raise RegistryRefused(refused.findings).as_error from refused
        except (EntitiesError, EngineUntrustworthy) as error:
            raise Broken("ENGINE", f"the engine cannot be trusted with it: {error}") from error

    async def _record(self, pending: PendingEntry) -> Receipt:
        for _ in range(INTERLEAVED_MAX):
            head = self._following.documents.holdings.head
            receipt = await self._recording.after(head, pending)
            await self._following.catch_up()
            if receipt is not None:
                return receipt
        raise NotReady("DOCUMENTS_BUSY", "others publish without end")


def _fold(documents: Documents) -> Fold:
    if documents.fold is None:
        raise NotReady(
            "REGISTRY_IS_A_FILE",
            "this policy service reads its registry from a file: change it there",
        )
    return documents.fold


def _statement(entries: Sequence[PendingEntry]) -> RegistryStatement:
    """What the entries say together; raises InvalidRequest."""
    said: RegistryStatement | None = None
    for number, pending in enumerate(entries):
        kind = pending.entry.WhichOneof("event")
        if kind not in REGISTRATIONS or pending.idempotency_key:
            what = "is no registration" if kind not in REGISTRATIONS else "has a key of its own"
            raise _invalid(f"entries[{number}]", what)
        statement: RegistryStatement = getattr(pending.entry, kind).statement
        if said is not None and statement != said:
            raise _invalid(f"entries[{number}]", "is of another publication")
        said = statement
    if said is None:
        raise _invalid("entries", "are not given")
    return said


def _as_proto(said: Statement) -> RegistryStatement:
    return RegistryStatement(
        owner=said.owner,
        serial=said.serial,
        document_sha256=said.document_sha256,
        officers=said.officers,
        officers_sha256=said.officers_sha256,
    )


def _unsigned(said: RegistryStatement) -> RegistryStatement:
    bare = RegistryStatement()
    bare.CopyFrom(said)
    bare.ClearField("key_id")
    bare.ClearField("signature")
    return bare


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(
        "INVALID_REQUEST",
        f"{field} {description}",
        violations=[FieldViolation(field, description)],
    )
