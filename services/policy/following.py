"""The documents in force, followed from the ledger: what the policy service knows, and nothing else.

Invariants:
- What is applied was proved: each document with its inclusion under a checkpoint that a known log key signed,
  and the chain without a gap from the first.
- A request is decided by one state: a document that arrives meanwhile counts from the next request on.
- Who has not heard from the ledger for a while decides nothing: a prohibition may have been published since.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from countersign.ledger.v1 import append_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import Receipt
from directive.entities import EntitiesError
from directive.findings import DirectiveRefused
from directive.self_test import EngineUntrustworthy
from policy.applied import Applied
from policy.documents import Documents
from shared import telemetry
from shared.bus import Bus
from shared.errors import NotReady, ServiceError, Unavailable
from tlog.errors import TlogError
from tlog.note import Verifier
from tlog.proof import verify_receipt

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How soon another policy service's publication is known here."""
FRESH_S: Final = 10.0
"""How long what was last heard is decided by; a restart of the ledger takes less."""
TIMEOUT_S: Final = 5.0

_known_index = telemetry.meter.create_gauge(
    "countersign.policy.documents.index",
    unit="{entry}",
    description="Ledger index of the newest document that is applied",
)


class Following:
    """Follows the documents of one ledger."""

    def __init__(
        self, bus: Bus, documents: Documents, logs: Sequence[Verifier], publisher: str
    ) -> None:
        """`documents` without any; it is changed here alone."""
        self._bus = bus
        self.documents = documents
        self._logs = tuple(logs)
        self._publisher = publisher
        self._busy = asyncio.Lock()
        self._applied: Applied | None = None
        self._heard = float("-inf")
        self.ended = asyncio.Event()
        """Set when what the ledger holds cannot be applied: nothing more can be decided."""

    def current(self) -> Applied:
        """What a request is decided by now; raises Unavailable when that may be out of date."""
        if self._applied is None or not self.is_fresh:
            raise Unavailable(
                "DIRECTIVES_STALE",
                f"the ledger has not told of its documents for {FRESH_S:.0f} s: what is in force is not "
                "known",
                retry_after_s=1,
            )
        return self._applied

    @property
    def is_fresh(self) -> bool:
        """Whether decisions can be made."""
        return self._applied is not None and time.monotonic() - self._heard <= FRESH_S

    async def catch_up(self) -> Applied:
        """Apply what the ledger has by now. Raises Unavailable, and NotReady for what cannot be applied.

        A caller that gives up does not leave it half-way.
        """
        return await asyncio.shield(asyncio.ensure_future(self._caught_up()))

    async def _caught_up(self) -> Applied:
        try:
            return await self._apply_new()
        except ServiceError:
            raise
        except Exception as error:
            # What was applied in part must not be gone on from.
            log.exception("a document was applied in a way that nobody foresaw")
            self._applied = None
            self.ended.set()
            raise NotReady("DOCUMENT_NOT_APPLIED", "a document could not be applied") from error

    async def _apply_new(self) -> Applied:
        async with self._busy:
            asked = time.monotonic()
            while True:
                request = pb.ListDocumentsRequest(after_index=self.documents.holdings.head)
                page = await self._bus.request(
                    "ledger.list_documents", request, pb.ListDocumentsResponse, TIMEOUT_S
                )
                if not page.documents:
                    break
                for one in page.documents:
                    self._follow(one)
            now = self.documents.holdings
            if self._applied is None or self._applied.holdings is not now:
                self._applied = await asyncio.to_thread(self._made)
                _known_index.set(-1 if now.head is None else now.head)
                fields = {"index": now.head, "directives": len(now.held)}
                log.info("documents applied", extra={"fields": fields})
            self._heard = asked
            return self._applied

    async def follow(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Catch up again and again, and tell when decisions can be made and when no longer.

        Ends only when what the ledger holds cannot be applied.
        """
        told = False
        while True:
            try:
                await self.catch_up()
            except NotReady as error:
                fields = {"reason": error.reason, "why": error.message}
                log.critical("cannot go on", extra={"fields": fields})
                self._applied = None
                self.ended.set()
            except ServiceError as error:
                log.warning("the ledger was not heard", extra={"fields": {"reason": error.reason}})
            if self.is_fresh != told:
                told = not told
                await tell(told)
            if self.ended.is_set():
                return
            await asyncio.sleep(POLL_S)

    def _follow(self, one: pb.Document) -> None:
        receipt = one.receipt
        try:
            openings = {opening.field: opening.value for opening in one.openings}
            self.documents.follow(receipt.index, self._proved(receipt), openings)
        except (DirectiveRefused, TlogError, DecodeError) as error:
            raise NotReady(
                "DOCUMENT_NOT_APPLIED",
                f"ledger entry {receipt.index} cannot be applied, and nothing is decided without it: {error}",
            ) from error

    def _proved(self, receipt: Receipt) -> Entry:
        refusals = []
        for one in self._logs:
            try:
                index, _ = verify_receipt(receipt.leaf, receipt.tlog_proof, one)
            except TlogError as error:
                refusals.append(str(error))
                continue
            if index != receipt.index:
                raise TlogError(f"its proof is of entry {index}")
            entry = Entry.FromString(receipt.leaf)
            if entry.recorded_by != self._publisher:
                raise TlogError(f"it was recorded by {entry.recorded_by}")
            return entry
        raise TlogError("; ".join(refusals))

    def _made(self) -> Applied:
        try:
            return self.documents.made()
        except (DirectiveRefused, EntitiesError, EngineUntrustworthy) as error:
            raise NotReady(
                "DIRECTIVES_NOT_APPLIED",
                f"what the ledger holds cannot be applied together: {error}",
            ) from error


@contextlib.asynccontextmanager
async def followed(
    following: Following, tell: Callable[[bool], Awaitable[None]]
) -> AsyncIterator[None]:
    """Followed while the context lasts: the ledger may be started later."""
    task = asyncio.create_task(following.follow(tell))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
