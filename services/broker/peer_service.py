"""The door for the broker of a peer: searches that it refers to us, and sees again."""

import logging
from typing import Final

from broker.admission import Call
from broker.ending import Ending
from broker.ledger import Ledger
from broker.peer_client import SERVICE
from broker.record import Record, rejected_entry
from broker.searching import Searching
from broker.service import BrokerServicer, call_of, seconds
from countersign.broker.v1 import peer_pb2 as pb
from countersign.broker.v1.peer_pb2_grpc import PeerServiceServicer
from countersign.ledger.v1.entry_pb2 import RequestRejected
from shared.errors import InvalidRequest, NotFound
from shared.identity import SpiffeId
from shared.referral import NotProved, ProvedReferral, prove_referral
from shared.registry import Peer, TrustRoots
from shared.rejections import Rejections, check_recorded
from shared.rpc import AccessRule, Context

log = logging.getLogger(__name__)


def _broker(who: SpiffeId) -> bool:
    """The peer's broker; the door has seen to it that it is of the peer's trust domain."""
    return (who.kind, who.name) == ("service", "broker")


ACCESS: Final[dict[str, AccessRule]] = {
    f"/{SERVICE}/{rpc}": _broker
    for rpc in ("ReferSearch", "GetReferredSearch", "WithdrawReferredSearch")
}


class PeerServicer(PeerServiceServicer):
    """See peer.proto. One for each peer, behind a port of its own."""

    def __init__(
        self,
        peer: Peer,
        *,
        here: str,
        trust: TrustRoots,
        searching: Searching,
        ending: Ending,
        ledger: Ledger,
        rejections: Rejections,
        broker: BrokerServicer,
    ) -> None:
        """`here` is our own trust domain."""
        self._peer = peer
        self._here = here
        self._trust = trust
        self._searching = searching
        self._ending = ending
        self._ledger = ledger
        self._rejections = rejections
        self._broker = broker

    async def ReferSearch(  # noqa: N802
        self, request: pb.ReferSearchRequest, context: Context
    ) -> pb.ReferSearchResponse:
        """See peer.proto."""
        call = call_of(context, "ReferSearch", SERVICE)
        try:
            proved = self._proved(request)
            record = await self._searching.take_referral(call, proved, request)
        except NotProved as error:
            await self._reject(call, error.check)
            raise InvalidRequest(error.check, str(error)) from error
        return pb.ReferSearchResponse(search=await self._broker.with_answer(record))

    def _proved(self, request: pb.ReferSearchRequest) -> ProvedReferral:
        proved = prove_referral(self._peer, self._here, request)
        if proved.request.facts.system not in self._trust.systems:
            # Also one that a third installation has: nobody is referred twice, so there are no circles.
            raise NotProved("SYSTEM_NOT_HERE", "the system is not one of this installation")
        return proved

    async def _reject(self, call: Call, reason: str) -> None:
        log.error("a peer's referral does not hold", extra={"fields": {"reason": reason}})
        event = RequestRejected(rpc=f"{SERVICE}/{call.rpc}", caller=str(call.caller), reason=reason)
        wait_s = await self._rejections.record(
            event, lambda event: self._ledger.append(rejected_entry(event, "", spent=False))
        )
        check_recorded(wait_s)

    async def GetReferredSearch(  # noqa: N802
        self, request: pb.GetReferredSearchRequest, context: Context
    ) -> pb.GetReferredSearchResponse:
        """See peer.proto."""
        record = await self._record(request.search_id)
        record = await self._broker.ended_within(record, seconds(request.wait))
        return pb.GetReferredSearchResponse(search=await self._broker.with_answer(record))

    async def WithdrawReferredSearch(  # noqa: N802
        self, request: pb.WithdrawReferredSearchRequest, context: Context
    ) -> pb.WithdrawReferredSearchResponse:
        """See peer.proto."""
        ended = await self._ending.withdraw(await self._record(request.search_id))
        return pb.WithdrawReferredSearchResponse(search=await self._broker.with_answer(ended))

    async def _record(self, search_id: str) -> Record:
        record = await self._broker.on_record(search_id)
        if record is None or record.referred_by != self._peer.trust_domain:
            raise NotFound("SEARCH_UNKNOWN", f"you have referred no search {search_id}")
        return record
