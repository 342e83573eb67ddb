"""Takes in what owners register: tries it on what counts, then puts it on record, entry after entry.

Invariants:
- Nothing is put on record that would not count, or by which a directive would name what is no more.
- The owner's signature is what counts, not who hands it in.
- What is on record in part counts for nothing; the same publication again begins anew.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date
from typing import Final

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import RegistrarsOrdered, RegistryStatement
from countersign.policy.v1 import policy_pb2 as pb
from countersign.type.v1.decision_pb2 import Receipt
from directive.entities import EntitiesError
from directive.findings import DirectiveRefused
from directive.self_test import EngineUntrustworthy
from policy.documents import Documents, Following
from policy.recording import Recording
from registry.findings import RegistryRefused
from registry.folding import Fold
from registry.orders import SignedOrder
from registry.publication import FIELDS
from registry.signature import Statement
from shared.clock import Clock, stamp
from shared.errors import (
    Broken,
    FieldViolation,
    InvalidRequest,
    NotFound,
    NotReady,
    Unavailable,
)
from shared.kinds import REGISTRATIONS

TRIES_MAX: Final = 5
"""Others may publish meanwhile: beside what they published, it is tried again from its first part on."""
OPENING_CHARACTERS_MAX: Final = 8000
"""As the ledger takes them."""


class Registering:
    """Publishes for whoever calls."""

    def __init__(self, following: Following, recording: Recording, clock: Clock) -> None:
        self._clock = clock
        self._following = following
        self._recording = recording

    async def get(self, owner: str) -> pb.GetRegistrationResponse:
        """What counts of an owner; raises NotFound."""
        await self._following.catch_up()
        previous = _fold(self._following.documents).previous(owner)
        if previous is None:
            raise NotFound("REGISTRATION_UNKNOWN", f"{owner} has registered nothing")
        response = pb.GetRegistrationResponse(statement=previous.statement.as_proto)
        response.commitments.extend(sorted(previous.commitments))
        return response

    async def publish(
        self, request: pb.PublishRegistrationRequest
    ) -> pb.PublishRegistrationResponse:
        """Put a registration on record; raises ServiceError."""
        said = _statement(request.entries)
        entries = [_bare(number, pending) for number, pending in enumerate(request.entries)]
        for _ in range(TRIES_MAX):
            await self._following.catch_up()
            tried = self._following.documents.copy()
            before = _fold(tried).previous(said.owner)
            if before is not None and before.statement == Statement.of(said):
                return pb.PublishRegistrationResponse(statement=said)
            head, today = tried.holdings.head, self._clock.now().astimezone(UTC).date()
            await asyncio.to_thread(_try, tried, entries, today)
            receipts = await self._record(head, entries)
            if len(receipts) == len(entries):
                await self._following.catch_up()
                return pb.PublishRegistrationResponse(statement=said, receipts=receipts)
        raise Unavailable("DOCUMENTS_BUSY", "others published meanwhile", retry_after_s=1)

    async def order(self, request: pb.PublishOrderRequest) -> pb.PublishOrderResponse:
        """Put an order of the registrars on record; raises ServiceError."""
        try:
            order = SignedOrder.parse(request.note).order
        except RegistryRefused as refused:
            raise refused.as_order_error from refused
        event = RegistrarsOrdered(owner=order.owner, note=request.note)
        for _ in range(TRIES_MAX):
            await self._following.catch_up()
            tried = self._following.documents.copy()
            known = _fold(tried).ruled(order.owner)
            if known is not None and known.order == order:
                return pb.PublishOrderResponse()
            head = tried.holdings.head
            entry = Entry(registrars_ordered=event, previous_document=head)
            # As the ledger is to stamp it: an order counts before its day, and by registrars in office.
            entry.recorded_at.CopyFrom(stamp(self._clock.now()))
            await asyncio.to_thread(_try_order, tried, entry)
            entry.ClearField("recorded_at")
            receipt = await self._recording.after(head, PendingEntry(entry=entry))
            if receipt is not None:
                await self._following.catch_up()
                return pb.PublishOrderResponse(receipt=receipt)
        raise Unavailable("DOCUMENTS_BUSY", "others published meanwhile", retry_after_s=1)

    async def _record(self, head: int | None, entries: Sequence[PendingEntry]) -> list[Receipt]:
        """The receipts, as far as nobody else's document came between: beside that it was not tried."""
        receipts: list[Receipt] = []
        for pending in entries:
            receipt = await self._recording.after(head, pending)
            if receipt is None:
                break
            receipts.append(receipt)
            head = receipt.index
        return receipts


def _try(tried: Documents, entries: Sequence[PendingEntry], today: date) -> None:
    """Raise InvalidRequest unless the registration would count, and all that is in force beside it."""
    known = tried.world.known
    assert known is not None, "what is tried is read with the names that are known"
    unopened = 0
    try:
        for pending in entries:
            head = tried.holdings.head
            pending.entry.ClearField("previous_document")
            if head is not None:
                pending.entry.previous_document = head
            openings = {one.field: one.value for one in pending.sensitive}
            # Whatever its place will be, each comes after the one before.
            changed = tried.apply(0 if head is None else head + 1, pending.entry, openings)
            unopened += changed.unopened if changed is not None else 0
        if tried.is_under_way(_statement(entries).owner):
            raise _invalid("entries", "are not a whole publication")
        if unopened:
            raise _invalid("entries", f"lack what opens {unopened} of the commitments added")
        tried.check_directives(known, today)
        tried.made()
    except RegistryRefused as refused:
        raise refused.as_error from refused
    except DirectiveRefused as refused:
        raise RegistryRefused(refused.findings).as_error from refused
    except (EntitiesError, EngineUntrustworthy) as error:
        raise Broken("ENGINE", f"the engine cannot be trusted with it: {error}") from error


def _try_order(tried: Documents, entry: Entry) -> None:
    """Raise InvalidRequest unless the order would count."""
    try:
        head = tried.holdings.head
        tried.apply(0 if head is None else head + 1, entry, {})
        tried.made()
    except RegistryRefused as refused:
        raise refused.as_order_error from refused
    except (DirectiveRefused, EntitiesError, EngineUntrustworthy) as error:
        raise Broken("ENGINE", f"the engine cannot be trusted with it: {error}") from error


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


def _bare(number: int, pending: PendingEntry) -> PendingEntry:
    """The event and what opens its commitments, and nothing else; raises InvalidRequest."""
    kind = pending.entry.WhichOneof("event")
    assert kind is not None, "it was looked at before"
    bare = PendingEntry()
    getattr(bare.entry, kind).CopyFrom(getattr(pending.entry, kind))
    fields = [one.field for one in pending.sensitive]
    wanted = FIELDS[: len(bare.entry.officers_published.added)]
    if sorted(fields) != sorted(wanted):
        raise _invalid(f"entries[{number}].sensitive", "are not those that open what is added")
    if any(len(one.value) > OPENING_CHARACTERS_MAX for one in pending.sensitive):
        raise _invalid(f"entries[{number}].sensitive", "are too long")
    bare.sensitive.extend(pending.sensitive)
    return bare


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest(
        "INVALID_REQUEST",
        f"{field} {description}",
        violations=[FieldViolation(field, description)],
    )
