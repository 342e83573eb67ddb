"""Searches of systems at a peer: referred there once our own decision is on record, followed, and ended here.

Order of the durable steps, and what a crash between them leaves:
1. SearchDecided, with the outcome REFERRED, in our ledger; a crash now leaves an open search that the
   caller's retry with the same id refers, or that expires on record;
2. the peer's own decision in its ledger; a crash now is healed by asking it, again and again until the
   deadline;
3. the end in the peer's ledger, and then in ours, naming both of the peer's entries; only now is an answer
   released.

What the peer says is believed as far as its ledger proves it (`shared.referral`); the first thing that does
not hold ends the search here, with the check's name.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from broker.answers import AnswerRefused, verified_answer
from broker.at_once import AtOnce
from broker.ledger import Ledger
from broker.peer_client import PeerClient
from broker.record import (
    Record,
    answered_at_peer_entry,
    answered_entry,
    refused_at_peer_entry,
    rejected_at_peer_entry,
)
from broker.watch import KnownSearches
from countersign.broker.v1.broker_pb2 import PeerSearch, Search
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from countersign.connector.v1.connector_pb2 import SearchAnswer, SignedAnswer
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry, PeerEntry
from countersign.policy.v1.policy_pb2 import Peer as AskedAt
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import SealedPayload
from shared.backoff import Backoff, PutOff
from shared.clock import Clock
from shared.errors import (
    Broken,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    TooLate,
    Unavailable,
    Withdrawn,
)
from shared.essential import essential
from shared.referral import (
    NotProved,
    OwnDecision,
    Proved,
    ProvedReferral,
    is_same_end,
    named_in,
    peer_named,
    peer_with,
    prove_decision,
    prove_end,
)
from shared.registry import Peer, TrustRoots
from shared.signing import VerifyKey

log = logging.getLogger(__name__)

FOLLOW_S: Final = 1.0
"""How often it is seen to that each open search is being followed."""
POLL_S: Final = 10.0
"""How long the peer holds one answer back."""
FOLLOWED_MAX: Final = 64
"""At one peer. Replicas are one caller there, of which a server takes 512 calls; eight fill it."""
TOLD_MAX: Final = 16
"""Withdrawals that one peer is being told of at once."""
RETRY_S: Final = 2.0
"""A search is asked about no more often, unless it has just been referred."""
AGAIN: Final = Backoff(first_s=1.0, most_s=15.0)
"""Before a peer that could not be heard is asked about anything again."""
RECALL_S: Final = 30.0
"""How often the ledger is asked what was taken back, by another broker too, which may be gone."""
UNTOLD_MAX: Final = 10_000
"""Withdrawals that the peer could not be told yet; past it, its own deadline ends them."""
AT_HAND_MAX: Final = 1_000
"""Receipts of the peer kept at hand, some 10 kB each; others are fetched from it again."""

_REFUSED: Final = DecisionOutcome.DECISION_OUTCOME_REFUSED
_REASON: Final = re.compile("[A-Z][A-Z_]{0,63}")
_PASSING: Final = (Unavailable, TooLate, Overloaded, Withdrawn, Broken, NotReady)
"""What may be otherwise the next time."""


@dataclass(frozen=True)
class _There:
    """What the peer has on record of a search, proved."""

    told: PeerSearch
    decided: Proved
    ended: Proved | None
    signed: SignedAnswer | None
    answer: SearchAnswer | None


class Referring:
    """Refers searches to peers, and follows them."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        known: KnownSearches,
        trust: TrustRoots,
        clients: Mapping[str, PeerClient],
        clock: Clock,
    ) -> None:
        """`clients` by the peers' trust domains."""
        self._ledger = ledger
        self._known = known
        self._trust = trust
        self._clients = clients
        self._clock = clock
        self._away = PutOff(AGAIN)
        self._following = AtOnce(FOLLOWED_MAX, self._away)
        self._telling = AtOnce(TOLD_MAX, self._away)
        self._asked_at: dict[str, float] = {}
        self._untold: dict[str, Record] = {}
        self._recalled = 0
        """The index from which on the ledger has not been asked yet what was taken back."""
        self._at_hand: OrderedDict[str, PeerSearch] = OrderedDict()

    def asked_at(self, system: str) -> AskedAt | None:
        """Who is asked elsewhere about a search of this system; None when nobody is."""
        peer = peer_with(self._trust, system)
        if peer is None:
            return None
        return AskedAt(trust_domain=peer.trust_domain, parties=sorted(peer.parties), refer=True)

    def vouched(self, proved: ProvedReferral) -> AskedAt:
        """Who was asked at the peer that a search comes from, with what they said."""
        peer = peer_named(self._trust, proved.by.peer)
        parties = sorted(peer.parties) if peer is not None else []
        return AskedAt(trust_domain=proved.by.peer, parties=parties, vouched=proved.vouched)

    async def refer(self, record: Record, bound: bytes, sealed_probe: SealedPayload) -> None:
        """Has the peer decide and run it. Raises Unavailable when it cannot be reached."""
        request = ReferSearchRequest(bound_request=bound)
        request.decision_receipt.CopyFrom(record.decided)
        request.sealed_probe.CopyFrom(sealed_probe)
        found = self._peer_of(record)
        if found is None:
            await self._reject(record, "PEER_UNKNOWN")
            return
        peer, client = found
        try:
            search = await client.refer(request)
        except _PASSING as error:
            raise Unavailable(
                "PEER_UNAVAILABLE",
                f"{peer.trust_domain} does not take the search now; try again with the same id",
                retry_after_s=error.retry_after_s or 1,
            ) from error
        except ServiceError as error:
            check = error.reason if _REASON.fullmatch(error.reason) else "UNREADABLE"
            await self._reject(record, check)
            return
        self._away.succeeded(record.referred_to)
        if not await self._take_in(record, peer, search):
            self._follow(record)

    async def withdraw(self, record: Record) -> None:
        """Tells the peer that a search has been withdrawn; tries again until it has heard, or expires it."""
        self._untold.pop(record.search_id, None)
        found = self._peer_of(record)
        if found is None or record.deadline <= self._clock.now():
            return
        try:
            await found[1].withdraw(record.search_id)
        except _PASSING:
            self._away.failed(record.referred_to)
            # At the end of the queue: others have their turn first.
            if len(self._untold) < UNTOLD_MAX:
                self._untold[record.search_id] = record
            return
        except ServiceError as error:
            # Never heard of there, or not ours: nothing is left to be withdrawn.
            log.warning("peer takes no withdrawal", extra={"fields": {"reason": error.reason}})
        self._away.succeeded(record.referred_to)

    async def give_out(self, record: Record, search: Search) -> None:
        """Adds the peer's receipts and the answer, as far as they can be had and are those on record."""
        told = self._at_hand.get(record.search_id)
        signed = self._known.answer(record.search_id)
        if told is None or (record.answer_sha256 and signed is None):
            there = await self._fetched(record)
            if there is None:
                return
            told, signed = there.told, there.signed
        search.peer.CopyFrom(told)
        if record.answer_sha256 and signed is not None:
            search.answer.CopyFrom(signed)

    async def _fetched(self, record: Record) -> _There | None:
        """What the peer has; None while our own record does not name it as it is."""
        found = self._peer_of(record)
        if found is None or record.end is None or not named_in(record.end)[0].peer:
            return None
        try:
            there = self._proved(record, found[0], await found[1].get(record.search_id))
        except (ServiceError, NotProved, AnswerRefused) as error:
            fields = {"error": type(error).__name__}
            log.warning("the peer's receipts cannot be had", extra={"fields": fields})
            return None
        if not _is_on_record(there, record.end):
            log.warning("the peer's entries are not those on record")
            return None
        self._keep(record, there)
        return there

    @contextlib.asynccontextmanager
    async def following(self, ended: asyncio.Event) -> AsyncIterator[None]:
        """Follows every open search that was referred, and says so if it no longer does."""
        keeping = essential(self._keep_following(), "following referred searches", ended)
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await asyncio.gather(self._following.stop(), self._telling.stop())

    async def _recall(self) -> None:
        """Has the peers told of what was taken back, as the ledger has it. Hearing it twice does nothing."""
        try:
            found, self._recalled = await self._ledger.taken_back(self._recalled, self._clock.now())
        except ServiceError as error:
            log.warning("recall put off", extra={"fields": {"reason": error.reason}})
            return
        for record in found[: UNTOLD_MAX - len(self._untold)]:
            self._untold.setdefault(record.search_id, record)

    async def _keep_following(self) -> None:
        loop = asyncio.get_running_loop()
        recall_at = 0.0
        while True:
            if self._clients and loop.time() >= recall_at:
                await self._recall()
                recall_at = loop.time() + RECALL_S
            for record in list(self._untold.values()):
                self._telling.start(record, self.withdraw)
            self._follow_open()
            await asyncio.sleep(FOLLOW_S)

    def _follow_open(self) -> None:
        now = asyncio.get_running_loop().time()
        referred = [record for record in self._known.open.values() if record.referred_to]
        names = {record.search_id for record in referred}
        self._asked_at = {k: at for k, at in self._asked_at.items() if k in names}
        # Those that were asked about longest ago come first.
        for record in sorted(referred, key=lambda one: self._asked_at.get(one.search_id, 0.0)):
            if now - self._asked_at.get(record.search_id, -RETRY_S) >= RETRY_S:
                self._follow(record)

    def _follow(self, record: Record) -> None:
        if self._following.start(record, self._ask):
            self._asked_at[record.search_id] = asyncio.get_running_loop().time()

    async def _ask(self, record: Record) -> None:
        found = self._peer_of(record)
        if found is None or record.deadline <= self._clock.now():
            return
        peer, client = found
        try:
            search = await client.get(record.search_id, POLL_S)
            await self._take_in(record, peer, search)
        except NotFound:
            pass  # not referred yet: the caller's retry does it, or it expires
        except ServiceError as error:
            log.warning("peer not heard", extra={"fields": {"reason": error.reason}})
            self._away.failed(record.referred_to)
            return
        self._away.succeeded(record.referred_to)

    async def _take_in(self, record: Record, peer: Peer, search: Search) -> bool:
        """Ends the search here if it has ended there. True when there is nothing left to wait for."""
        try:
            there = self._proved(record, peer, search)
        except (NotProved, AnswerRefused) as error:
            check = error.check if isinstance(error, NotProved) else str(error)
            fields = {"peer": peer.trust_domain, "check": check}
            log.error("what a peer says does not hold", extra={"fields": fields})
            await self._reject(record, check)
            return True
        pending = self._end_after(record, there)
        if pending is not None:
            await self._end(record, pending, there.signed)
        if pending is not None or there.ended is None:
            # What has ended there and not here is not shown: only what is on record here is.
            self._keep(record, there)
        return pending is not None or there.ended is not None

    def _proved(self, record: Record, peer: Peer, search: Search) -> _There:
        """Raises NotProved or AnswerRefused."""
        told = PeerSearch(trust_domain=peer.trust_domain)
        told.decision_receipt.CopyFrom(search.decision_receipt)
        if search.HasField("end_receipt"):
            told.end_receipt.CopyFrom(search.end_receipt)
        signed = search.answer if search.HasField("answer") else None
        own = OwnDecision.of(record.decided, self._trust)
        decided = prove_decision(peer, own, told.decision_receipt)
        ended = prove_end(peer, decided, told, signed)
        answer = None
        if signed is not None and ended is not None:
            key = VerifyKey(peer.systems[record.system].answer_verify_key)
            answer = verified_answer(signed, record, key)
            ours = answered_entry(record, answer, _digest(signed)).entry
            if not is_same_end(ours, ended.entry):
                raise NotProved("PEER_END_MISMATCH", "the peer's ledger has another result")
        return _There(told, decided, ended, signed, answer)

    def _end_after(self, record: Record, there: _There) -> PendingEntry | None:
        """The end that follows for us; None while there is none, or when only time can bring it."""
        if there.decided.entry.search_decided.decision.outcome == _REFUSED:
            return refused_at_peer_entry(record, there.decided.at)
        if there.ended is None or there.signed is None or there.answer is None:
            # Expired or withdrawn there: our own deadline, which is the same, says so here.
            return None
        return answered_at_peer_entry(
            record, there.answer, _digest(there.signed), there.decided.at, there.ended.at
        )

    async def _reject(self, record: Record, check: str) -> None:
        await self._end(record, rejected_at_peer_entry(record, check))
        # The peer may have it all the same, and be about to run it.
        await self.withdraw(record)

    async def _end(
        self, record: Record, pending: PendingEntry, signed: SignedAnswer | None = None
    ) -> None:
        ended = await self._ledger.end(record, pending)
        # Only now, when the end is durable, may anyone see the answer.
        if signed is not None and ended.answer_sha256 == _digest(signed):
            self._known.put_answer(record.search_id, signed)
        self._known.put(ended)

    def _keep(self, record: Record, there: _There) -> None:
        before = self._at_hand.get(record.search_id)
        if before is not None and before.HasField("end_receipt") and there.ended is None:
            return  # an answer that was overtaken on its way
        self._at_hand[record.search_id] = there.told
        while len(self._at_hand) > AT_HAND_MAX:
            self._at_hand.popitem(last=False)

    def _peer_of(self, record: Record) -> tuple[Peer, PeerClient] | None:
        peer = peer_named(self._trust, record.referred_to)
        client = self._clients.get(record.referred_to)
        if peer is None or client is None or record.system not in peer.systems:
            return None
        return peer, client


def _digest(signed: SignedAnswer) -> bytes:
    return hashlib.sha256(signed.answer).digest()


def _is_on_record(there: _There, end: Entry) -> bool:
    """Whether the peer's entries are those that our own end names."""
    return named_in(end) == (
        there.decided.at,
        PeerEntry() if there.ended is None else there.ended.at,
    )
