"""What the requester checks of a search that was referred to a peer: that both ledgers have it, and agree.

Beside the steps of `verify`, and like them on nobody's word but that of the trust roots:
1. our ledger's decision refers the search to the peer that has the system, with all who were asked here
   permitting;
2. the peer's decision is in its ledger, is on this very request, and names our entry;
3. an answer stands in both ledgers alike: the peer's end is of its decision, and ours names both entries.
"""

from typing import Final

from countersign.broker.v1.broker_pb2 import Search
from countersign.client.failure import VerificationError
from countersign.ledger.v1.entry_pb2 import Entry, PeerEntry, SearchDecided
from countersign.type.v1.decision_pb2 import DecisionOutcome
from shared.referral import (
    NotProved,
    OwnDecision,
    Proved,
    is_referral,
    is_same_end,
    named_in,
    peer_with,
    prove_decision,
    prove_end,
)
from shared.registry import TrustRoots
from tlog.errors import TlogError

_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED
_REFERRED: Final = DecisionOutcome.DECISION_OUTCOME_REFERRED


def is_referred(decided: SearchDecided, trust: TrustRoots) -> bool:
    """Step 1. A search that says it is referred, and is not so by this, is neither permitted nor refused."""
    peer = peer_with(trust, decided.summary.system)
    return (
        peer is not None
        and decided.decision.outcome == _REFERRED
        and decided.referred_to == peer.trust_domain
        and is_referral(decided.decision.verdicts, peer.trust_domain)
    )


def verify_peer_decision(
    search: Search, decided: SearchDecided, end: Entry | None, trust: TrustRoots
) -> Proved:
    """Step 2: the peer's decision, whatever it is. Raises VerificationError."""
    peer = peer_with(trust, decided.summary.system)
    if peer is None or not search.HasField("peer"):
        raise VerificationError("PEER_NOT_RECORDED", "there are no receipts of the peer's ledger")
    try:
        own = OwnDecision.of(search.decision_receipt, trust)
        there = prove_decision(peer, own, search.peer.decision_receipt)
    except NotProved as error:
        raise VerificationError(error.check, f"the peer: {error}") from error
    except TlogError as error:
        raise VerificationError("RECEIPT_INVALID", f"the trust roots: {error}") from error
    named = named_in(end)[0] if end is not None else PeerEntry()
    if named.peer and named != there.at:
        raise VerificationError("PEER_DECISION_MISMATCH", "our ledger names another decision")
    return there


def verify_peer(search: Search, decided: SearchDecided, end: Entry, trust: TrustRoots) -> None:
    """Steps 2 and 3, of a search that was answered. Raises VerificationError."""
    there = verify_peer_decision(search, decided, end, trust)
    peer = peer_with(trust, decided.summary.system)
    assert peer is not None, "its decision was proved"
    answer = search.answer if search.HasField("answer") else None
    try:
        ended = prove_end(peer, there, search.peer, answer)
    except NotProved as error:
        raise VerificationError(error.check, f"the peer: {error}") from error
    if ended is None or there.entry.search_decided.decision.outcome != _PERMITTED:
        raise VerificationError("PEER_NOT_RECORDED", "no answer is on record at the peer")
    if named_in(end) != (there.at, ended.at) or not is_same_end(end, ended.entry):
        raise VerificationError("PEER_END_MISMATCH", "the two ledgers do not say the same")
