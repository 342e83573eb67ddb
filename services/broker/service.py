"""The gRPC face of the broker: decodes, calls, encodes."""

import asyncio
import base64
import binascii
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.duration_pb2 import Duration

from broker.admission import SERVICE, Call
from broker.answers import Answers
from broker.discharging import Discharging
from broker.ending import Ending
from broker.ledger import Ledger
from broker.participants import Known
from broker.record import Record
from broker.referring import Referring
from broker.searching import Searching
from broker.watch import KnownSearches
from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import BrokerServiceServicer
from shared.errors import FieldViolation, InvalidRequest, NotFound, Unavailable
from shared.referral import keys_of, peer_with
from shared.registry import Registry, TrustRoots
from shared.rpc import Context, caller

PAGE_DEFAULT: Final = 50
SEARCHES_PAGE_MAX: Final = 50
"""Each search comes with two receipts: fifty stay well below the size of a message on the bus."""
WATCH_POLL_S: Final = 2.0
"""Another broker may have taken the answer in; the ledger is asked this often."""
TIMER_EARLY_S: Final = 0.01
"""A timer counts whole milliseconds, and may ring before its time."""


class BrokerServicer(BrokerServiceServicer):
    """See broker.proto."""

    def __init__(
        self,
        *,
        searching: Searching,
        answers: Answers,
        ending: Ending,
        ledger: Ledger,
        known: KnownSearches,
        participants: Known,
        trust: TrustRoots,
        referring: Referring,
        discharging: Discharging,
    ) -> None:
        self._searching = searching
        self._answers = answers
        self._ending = ending
        self._ledger = ledger
        self._known = known
        self._participants = participants
        self._trust = trust
        self._referring = referring
        self._discharging = discharging

    async def CheckSearch(  # noqa: N802  # named by the contract
        self, request: pb.CheckSearchRequest, context: Context
    ) -> pb.CheckSearchResponse:
        """See broker.proto."""
        return await self._searching.check(call_of(context, "CheckSearch"), request)

    async def SubmitSearch(  # noqa: N802
        self, request: pb.SubmitSearchRequest, context: Context
    ) -> pb.SubmitSearchResponse:
        """See broker.proto."""
        record = await self._searching.submit(call_of(context, "SubmitSearch"), request)
        record = await self.ended_within(record, seconds(request.wait))
        response = pb.SubmitSearchResponse()
        await self._tell(record, response.search)
        return response

    async def GetSearch(  # noqa: N802
        self, request: pb.GetSearchRequest, context: Context
    ) -> pb.GetSearchResponse:
        """See broker.proto."""
        wait_s = seconds(request.wait)
        record = await self._record(request.search_id, context, fresh=not wait_s)
        record = await self.ended_within(record, wait_s)
        response = pb.GetSearchResponse()
        await self._tell(record, response.search)
        return response

    async def ended_within(self, record: Record, wait_s: float) -> Record:
        """The record once it has ended, or as it is after this long."""
        if not wait_s:
            return record
        until = asyncio.get_running_loop().time() + wait_s
        with self._known.changes(record.search_id) as changed:
            record = self._known.get(record.search_id) or record
            while record.is_open and not self._known.stopping:
                if not await self._changed(record, changed, until):
                    break
                record = self._known.get(record.search_id) or record
        # The caller may have been told of the end by another broker, and must not be told that it is open.
        return await self._ending.as_recorded(record) if record.is_open else record

    async def WatchSearch(  # noqa: N802
        self, request: pb.WatchSearchRequest, context: Context
    ) -> AsyncIterator[pb.WatchSearchResponse]:
        """See broker.proto."""
        record = await self._record(request.search_id, context)
        with self._known.changes(record.search_id) as changed:
            record = self._known.get(record.search_id) or record
            while record.is_open:
                yield pb.WatchSearchResponse(search=record.as_search())
                while record.is_open:
                    if self._known.stopping:
                        raise Unavailable(
                            "BROKER_STOPPING",
                            "this broker is about to end; watch again",
                            retry_after_s=1,
                        )
                    await self._changed(record, changed)
                    record = self._known.get(record.search_id) or record
            yield pb.WatchSearchResponse(search=await self.with_answer(record))

    async def _changed(
        self, record: Record, changed: asyncio.Event, until: float = math.inf
    ) -> bool:
        """Waits until it has, or may have; False once `until` has passed, by the loop's clock.

        One timer that wakes us, and no `asyncio.timeout`, which would cancel us: nearly every search waits.
        """
        loop = asyncio.get_running_loop()
        poll_at = loop.time() + WATCH_POLL_S
        timer = loop.call_at(min(poll_at, until), changed.set)
        try:
            await changed.wait()
        finally:
            timer.cancel()
        changed.clear()
        if poll_at - TIMER_EARLY_S <= loop.time() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until if until < math.inf else None):
                    await self._ending.as_recorded(record)
        return loop.time() < until

    async def ListSearches(  # noqa: N802
        self, request: pb.ListSearchesRequest, context: Context
    ) -> pb.ListSearchesResponse:
        """See broker.proto."""
        size = min(request.page_size or PAGE_DEFAULT, SEARCHES_PAGE_MAX)
        before = _read_token(request.page_token)
        records = await self._ledger.searches_of(caller(context).name, size, before)
        token = _write_token(records[-1].decided.index) if len(records) == size else ""
        searches = [record.as_search() for record in records]
        return pb.ListSearchesResponse(searches=searches, next_page_token=token)

    async def CancelSearch(  # noqa: N802
        self, request: pb.CancelSearchRequest, context: Context
    ) -> pb.CancelSearchResponse:
        """See broker.proto."""
        record = await self._record(request.search_id, context)
        ended = await self._ending.withdraw(record)
        if ended.referred_to and ended.state == pb.SEARCH_STATE_WITHDRAWN:
            await self._referring.withdraw(ended)
        return pb.CancelSearchResponse(search=ended.as_search())

    async def DischargeObligation(  # noqa: N802
        self, request: pb.DischargeObligationRequest, context: Context
    ) -> pb.DischargeObligationResponse:
        """See broker.proto."""
        call = call_of(context, "DischargeObligation")
        self._discharging.allow(call)
        # A duty is of the decision, and that does not change with what is at hand of the end.
        record = await self.on_record(request.search_id, fresh=False)
        return await self._discharging.discharge(call, request, record)

    async def ListSystems(  # noqa: N802
        self, request: pb.ListSystemsRequest, context: Context
    ) -> pb.ListSystemsResponse:
        """See broker.proto."""
        registry = self._participants.current().registry
        names = sorted(registry.systems)
        start = _read_token(request.page_token)
        size = request.page_size or PAGE_DEFAULT
        page = names[start : start + size]
        more = start + size < len(names)
        return pb.ListSystemsResponse(
            systems=[self._system(registry, name) for name in page],
            next_page_token=_write_token(start + size) if more else "",
        )

    def _system(self, registry: Registry, name: str) -> pb.System:
        system = registry.systems[name]
        keys, peer = keys_of(self._trust, name), peer_with(self._trust, name)
        return pb.System(
            id=name,
            name=system.name,
            operator_agency=system.operator,
            commercial=system.commercial,
            galleries=[
                pb.Gallery(id=key, owner_agency=gallery.owner, gallery_class=gallery.proto_class)
                for key, gallery in sorted(registry.galleries.items())
                if gallery.system == name
            ],
            sealing_public_key=keys.sealing_public_key if keys else b"",
            answer_verify_key=keys.answer_verify_key if keys else b"",
            peer=peer.trust_domain if peer else "",
        )

    async def _record(self, search_id: str, context: Context, fresh: bool = True) -> Record:
        record = await self.on_record(search_id, fresh)
        if record is None or record.origin_agency != caller(context).name:
            raise NotFound("SEARCH_UNKNOWN", f"your agency has no search {search_id}")
        return record

    async def on_record(self, search_id: str, fresh: bool = True) -> Record | None:
        """The search, whoever asked for it; one that is open at hand is looked up again if `fresh`."""
        record = self._known.get(search_id)
        if record is None or (fresh and record.is_open):
            # An open search may have been ended by another broker.
            record = await self._ledger.look_up(search_id)
            if record is not None:
                self._known.put(record)
        return record

    async def with_answer(self, record: Record) -> pb.Search:
        """The search with its answer, once that is on record; of a referred one with what the peer has."""
        search = pb.Search()
        await self._tell(record, search)
        return search

    async def _tell(self, record: Record, search: pb.Search) -> None:
        record.tell(search)
        if record.referred_to:
            await self._referring.give_out(record, search)
            return
        answer = await self._answers.give_out(record)
        if answer is not None:
            search.answer.CopyFrom(answer)


def call_of(context: Context, rpc: str, service: str = SERVICE) -> Call:
    """Who calls, and until when they wait."""
    remaining_s: float | None = context.time_remaining()
    until = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
    return Call(caller(context), rpc, until, service)


def seconds(wait: Duration) -> float:
    """How long that is."""
    return wait.seconds + wait.nanos / 1e9


def _write_token(position: int) -> str:
    return base64.urlsafe_b64encode(f"v1:{position}".encode()).decode()


def _read_token(token: str) -> int:
    """The position in a page token, 0 for none. Raises InvalidRequest."""
    if not token:
        return 0
    try:
        version, _, position = (
            base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(":")
        )
        if (
            version == "v1"
            and position.isascii()
            and position.isdecimal()
            and int(position) < 2**63
        ):
            return int(position)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        pass
    raise InvalidRequest(
        "PAGE_TOKEN_INVALID",
        "page_token is not one that this service gave",
        violations=[FieldViolation("page_token", "take it from the last answer, unchanged")],
    )
