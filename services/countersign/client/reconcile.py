"""Compares what two ledgers have on record of the searches between them.

Everything here follows from the entries of two exports, which were verified before. A search that was
referred has its decision and its end in both ledgers, and each entry that came second names the first by
index and digest.

What cannot be judged is left out and counted: a search that is open and whose deadline the export does not
reach, and one that is newer than the other export.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from google.protobuf.message import DecodeError

from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.ledger.v1.entry_pb2 import Entry, PeerEntry
from countersign.type.v1.decision_pb2 import DecisionOutcome
from shared.entry_facts import ENDS, OPENING_OUTCOMES, short_name
from shared.kinds import KINDS
from shared.referral import is_same_end, named_in

_REFERRED: Final = DecisionOutcome.DECISION_OUTCOME_REFERRED
_PEER_REFUSED: Final = FailureReason.FAILURE_REASON_PEER_REFUSED
_PEER_REJECTED: Final = FailureReason.FAILURE_REASON_PEER_REJECTED
_END_NAMES: Final = frozenset(name for name, number in KINDS.items() if number in ENDS)


class Differs(StrEnum):
    """What is wrong with a search. Append-only: programs branch on these."""

    NOT_TAKEN = "NOT_TAKEN"
    """One ledger has it as referred to the other, which has nothing of it."""
    NOT_SENT = "NOT_SENT"
    """One ledger has it as referred by the other, which has nothing of it."""
    DECISION = "DECISION"
    """The decision that was answered to is not the one on record, or is on another request."""
    END = "END"
    """The two ledgers have it end differently."""


@dataclass(frozen=True)
class Search:
    """A search as one ledger has it."""

    search_id: str
    index: int
    leaf_sha256: bytes
    decided: Entry
    end: Entry | None = None
    end_at: tuple[int, bytes] | None = None
    """Index and digest of the end."""

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come."""
        return self.end is None and self.decided.search_decided.decision.outcome in OPENING_OUTCOMES

    @property
    def ended(self) -> str:
        """How it ended, in a word or two."""
        if self.end is None:
            return "open" if self.is_open else "refused"
        failed = self.end.search_failed
        why = short_name(FailureReason, failed.reason).lower() if failed.reason else ""
        return f"{self.end.WhichOneof('event')} {why}".strip().removeprefix("search_")

    def at(self, log_origin: str) -> tuple[str, int, bytes]:
        """Where its decision is."""
        return log_origin, self.index, self.leaf_sha256


@dataclass
class Account:
    """What one ledger has on record of searches between it and others."""

    log_origin: str
    trust_domains: set[str] = field(default_factory=set)
    """Of those who appended to it."""
    size: int = 0
    """How many entries the export has."""
    newest_s: int = 0
    """Time of the newest entry."""
    sent: dict[str, Search] = field(default_factory=dict)
    taken: dict[str, Search] = field(default_factory=dict)

    @classmethod
    def of(cls, log_origin: str, leaves: Iterable[bytes]) -> "Account":
        """Reads a ledger from its first entry to its last."""
        account = cls(log_origin)
        for index, leaf in enumerate(leaves):
            account.size = index + 1
            try:
                entry = Entry.FromString(leaf)
            except DecodeError:
                continue
            account._take(index, leaf, entry)
        return account

    def _take(self, index: int, leaf: bytes, entry: Entry) -> None:
        self.newest_s = max(self.newest_s, entry.recorded_at.seconds)
        self.trust_domains.add(entry.recorded_by.partition("://")[2].partition("/")[0])
        kind = str(entry.WhichOneof("event"))
        if kind == "search_decided":
            found = Search(entry.search_id, index, hashlib.sha256(leaf).digest(), entry)
            if entry.search_decided.decision.outcome == _REFERRED:
                self.sent[entry.search_id] = found
            elif entry.search_decided.HasField("referred_by"):
                self.taken[entry.search_id] = found
        elif kind in _END_NAMES:
            for searches in (self.sent, self.taken):
                known = searches.get(entry.search_id)
                if known is not None and getattr(entry, kind).decided_index == known.index:
                    at = index, hashlib.sha256(leaf).digest()
                    searches[entry.search_id] = replace(known, end=entry, end_at=at)

    def may_still_end(self, search: Search) -> bool:
        """Whether the export ends before the search must have."""
        deadline = search.decided.search_decided.deadline.seconds
        return search.is_open and deadline >= self.newest_s


@dataclass(frozen=True)
class Discrepancy:
    """One search on which the two ledgers do not agree."""

    search_id: str
    what: Differs
    sent: Search | None
    taken: Search | None
    sent_by: str
    """Name of the log that has it, or should have it, as referred."""


@dataclass
class Reconciled:
    """What came of a comparison."""

    compared: int = 0
    not_judged: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)


def reconcile(one: Account, other: Account) -> Reconciled:
    """Both directions."""
    found = Reconciled()
    for sender, taker in ((one, other), (other, one)):
        for sent, taken in _pairs(sender, taker):
            search = sent or taken
            assert search is not None
            if _cannot_be_judged(sender, taker, sent, taken):
                found.not_judged += 1
                continue
            found.compared += 1
            what = _differs(sent, taken, sender, taker)
            if what is not None:
                discrepancy = Discrepancy(search.search_id, what, sent, taken, sender.log_origin)
                found.discrepancies.append(discrepancy)
    return found


def _pairs(sender: Account, taker: Account) -> Iterator[tuple[Search | None, Search | None]]:
    to_taker = {
        search_id: sent
        for search_id, sent in sender.sent.items()
        if sent.decided.search_decided.referred_to in taker.trust_domains
    }
    from_sender = {
        search_id: taken
        for search_id, taken in taker.taken.items()
        if taken.decided.search_decided.referred_by.log_origin == sender.log_origin
    }
    for search_id in dict.fromkeys([*to_taker, *from_sender]):
        yield to_taker.get(search_id), from_sender.get(search_id)


def _cannot_be_judged(
    sender: Account, taker: Account, sent: Search | None, taken: Search | None
) -> bool:
    if taken is None:
        assert sent is not None, "one ledger has it"
        return sender.may_still_end(sent) or _is_newer(sent, taker)
    if sent is None:
        return taken.decided.recorded_at.seconds > sender.newest_s
    return sender.may_still_end(sent) or taker.may_still_end(taken)


def _is_newer(sent: Search, taker: Account) -> bool:
    """Whether the peer's entry that the end names is past the end of the peer's export."""
    if sent.end is None:
        return False
    there, _ = named_in(sent.end)
    return (
        there.log_origin == taker.log_origin
        and there.index >= taker.size
        and sent.end.recorded_at.seconds > taker.newest_s
    )


def _differs(
    sent: Search | None, taken: Search | None, sender: Account, taker: Account
) -> Differs | None:
    if sent is None:
        return Differs.NOT_SENT
    if taken is None:
        # Turned away before it was decided there: then nothing but the rejected call is on record there.
        rejected = sent.end is not None and sent.end.search_failed.reason == _PEER_REJECTED
        return None if rejected else Differs.NOT_TAKEN
    ours, theirs = sent.decided.search_decided, taken.decided.search_decided
    if _place(theirs.referred_by) != sent.at(sender.log_origin) or (
        ours.request_sha256 != theirs.request_sha256
    ):
        return Differs.DECISION
    return None if _ends_agree(sent, taken, taker.log_origin) else Differs.END


def _ends_agree(sent: Search, taken: Search, log_origin: str) -> bool:
    ours, theirs = sent.end, taken.end
    if ours is None:
        return taken.is_open
    kind = str(ours.WhichOneof("event"))
    if kind in ("search_expired", "search_withdrawn"):
        return theirs is not None and theirs.WhichOneof("event") == kind
    peer_decided, peer_ended = named_in(ours)
    if _place(peer_decided) != taken.at(log_origin):
        return False
    if ours.search_failed.reason == _PEER_REFUSED:
        return theirs is None and not taken.is_open
    return (
        theirs is not None
        and _place(peer_ended) == (log_origin, *(taken.end_at or ()))
        and is_same_end(ours, theirs)
    )


def _place(entry: PeerEntry) -> tuple[str, int, bytes]:
    return entry.log_origin, entry.index, entry.leaf_sha256
