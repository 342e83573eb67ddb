"""LedgerDisclosureService: openings by right and on the record. Who is turned away is on record too."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.disclosure_pb2_grpc import LedgerDisclosureServiceServicer
from countersign.ledger.v1.entry_pb2 import Entry, RequestRejected
from countersign.ledger.v1.query_pb2 import OpeningMatch
from countersign.type.v1.decision_pb2 import Receipt
from ledger.archive import Archive
from ledger.disclosure import Disclosure
from ledger.entry import Completer
from ledger.expungement import Expungement
from ledger.page_tokens import read_token, token
from ledger.recorded_requests import RecordedRequests
from ledger.requests import known_index
from ledger.sequencer import Placed, Sequencer
from shared.clock import Clock
from shared.errors import NotAllowed, NotAuthentic, Overloaded, ServiceError
from shared.identity import SpiffeId
from shared.rates import Allowances, Rate
from shared.rejections import Rejections, check_recorded
from shared.rpc import AccessRule, Context, caller

log = logging.getLogger(__name__)

SERVICE: Final = "countersign.ledger.v1.LedgerDisclosureService"
QUERY_SERVICE: Final = "countersign.ledger.v1.LedgerQueryService"
PAGE_DEFAULT: Final = 50
READERS: Final = Rate(per_s=10, burst=2000)
"""Each reading is an entry for ever: an auditor's script reads a year's cases in one go, and not for ever."""


def _asks(who: SpiffeId) -> bool:
    return who.kind in ("agency", "oversight")


ACCESS: Final[dict[str, AccessRule]] = {
    f"/{SERVICE}/{rpc}": _asks
    for rpc in (
        *("Disclose", "ReadRequests", "RequestExpunge", "ApproveExpunge", "DeclineExpunge"),
        "ListExpungeRequests",
    )
}


class TurnedAway:
    """Puts on record who was turned away, before they hear of it."""

    def __init__(self, sequencer: Sequencer, completer: Completer, clock: Clock) -> None:
        self._sequencer = sequencer
        self._completer = completer
        self._rejections = Rejections(clock)
        self._readers = Allowances(READERS, clock)

    @contextlib.asynccontextmanager
    async def recorded(self, rpc: str, who: SpiffeId) -> AsyncIterator[None]:
        """Around what may turn a caller away. Raises Overloaded, unrecorded, for one that asks too often."""
        wait_s = self._readers.wait_s(str(who))
        if wait_s:
            text = (
                "you ask the ledger for what it records too often; wait as long as RetryInfo says"
            )
            raise Overloaded("READER_LIMIT", text, retry_after_s=wait_s)
        try:
            yield
        except (NotAllowed, NotAuthentic) as refusal:
            event = RequestRejected(rpc=rpc, caller=str(who), reason=refusal.reason)
            try:
                wait_s = await self._rejections.record(event, self._append)
            except ServiceError:
                # They were refused all the same; that nothing is recorded is the writer's own alarm.
                log.error("a refusal is not on record", extra={"fields": {"rpc": rpc}})
                raise refusal from None
            check_recorded(wait_s)
            raise

    async def _append(self, event: RequestRejected) -> None:
        pending = PendingEntry(entry=Entry(request_rejected=event))
        await self._sequencer.append([self._completer.complete(pending, "entry")])


class RecordedFinder:
    """Finds entries by what openings hold, for queries."""

    def __init__(self, disclosure: Disclosure, turned_away: TurnedAway) -> None:
        self._disclosure = disclosure
        self._turned_away = turned_away

    async def find(self, reader: SpiffeId, match: OpeningMatch) -> list[int]:
        """Find them for a reader entitled to it, on record before it returns. Raises NotAllowed."""
        async with self._turned_away.recorded(QUERY_SERVICE, reader):
            return await self._disclosure.find(reader, match)


class LedgerDisclosureServicer(LedgerDisclosureServiceServicer):
    """Translates; what is disclosed and what becomes of requests is decided elsewhere."""

    def __init__(
        self,
        disclosure: Disclosure,
        requests: RecordedRequests,
        expungement: Expungement,
        archive: Archive,
        turned_away: TurnedAway,
    ) -> None:
        self._disclosure = disclosure
        self._requests = requests
        self._expungement = expungement
        self._archive = archive
        self._turned_away = turned_away

    async def Disclose(  # noqa: N802
        self, request: pb.DiscloseRequest, context: Context
    ) -> pb.DiscloseResponse:
        """See disclosure.proto."""
        who, index = caller(context), known_index(request.index, "index")
        async with self._turned_away.recorded(f"{SERVICE}/Disclose", who):
            disclosed = await self._disclosure.disclose(who, index, request.fields, request.ground)
        size, _, proof = await self._archive.inclusion_proof(index, 0)
        assert size > index, "the entry is in the newest tree"
        return pb.DiscloseResponse(
            openings=[
                pb.DisclosedOpening(field=one.field, salt=one.salt, value=one.value)
                for one in disclosed.openings
            ],
            entry_receipt=Receipt(
                index=index, leaf=await self._archive.entry(index), tlog_proof=proof
            ),
            reading_receipt=_receipt(disclosed.reading),
        )

    async def ReadRequests(  # noqa: N802
        self, request: pb.ReadRequestsRequest, context: Context
    ) -> AsyncIterator[pb.ReadRequestsResponse]:
        """See disclosure.proto."""
        who = caller(context)
        async with self._turned_away.recorded(f"{SERVICE}/ReadRequests", who):
            reading = await self._requests.begin(who, request)
        yield pb.ReadRequestsResponse(
            beginning=pb.RequestsBeginning(
                reading_receipt=_receipt(reading.entry),
                requests=len(reading.indexes),
                checkpoint=reading.tree.note,
            )
        )
        async for part in self._requests.read(reading):
            yield pb.ReadRequestsResponse(requests=part)

    async def RequestExpunge(  # noqa: N802
        self, request: pb.RequestExpungeRequest, context: Context
    ) -> pb.RequestExpungeResponse:
        """See disclosure.proto."""
        who = caller(context)
        indexes = [known_index(one, "indexes") for one in request.indexes]
        async with self._turned_away.recorded(f"{SERVICE}/RequestExpunge", who):
            asked, placed = await self._expungement.request(
                who, indexes, request.search_id, request.ground
            )
        return pb.RequestExpungeResponse(request=asked, receipt=_receipt(placed))

    async def ApproveExpunge(  # noqa: N802
        self, request: pb.ApproveExpungeRequest, context: Context
    ) -> pb.ApproveExpungeResponse:
        """See disclosure.proto."""
        who, index = caller(context), known_index(request.requested_index, "requested_index")
        async with self._turned_away.recorded(f"{SERVICE}/ApproveExpunge", who):
            expunged = await self._expungement.approve(who, index, request.ground)
        return pb.ApproveExpungeResponse(
            request=expunged.request,
            receipt=_receipt(expunged.entry),
            openings_destroyed=expunged.openings,
        )

    async def DeclineExpunge(  # noqa: N802
        self, request: pb.DeclineExpungeRequest, context: Context
    ) -> pb.DeclineExpungeResponse:
        """See disclosure.proto."""
        who, index = caller(context), known_index(request.requested_index, "requested_index")
        async with self._turned_away.recorded(f"{SERVICE}/DeclineExpunge", who):
            declined, placed = await self._expungement.decline(who, index, request.ground)
        return pb.DeclineExpungeResponse(request=declined, receipt=_receipt(placed))

    async def ListExpungeRequests(  # noqa: N802
        self, request: pb.ListExpungeRequestsRequest, context: Context
    ) -> pb.ListExpungeRequestsResponse:
        """See disclosure.proto."""
        before = read_token(request.page_token)[0] if request.page_token else 0
        page = await self._expungement.requests(
            caller(context), before, request.page_size or PAGE_DEFAULT
        )
        return pb.ListExpungeRequestsResponse(
            requests=page.found,
            next_page_token="" if page.before is None else token(page.before),
        )


def _receipt(placed: Placed) -> Receipt:
    return Receipt(index=placed.index, leaf=placed.leaf, tlog_proof=placed.tlog_proof)
