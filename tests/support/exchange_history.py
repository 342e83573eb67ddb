"""What happened in an exchange of searches, and what must be so whatever broke meanwhile. Pure.

    wrongs = wrongs_of(History(leaves=..., told=..., tried=..., failed=..., runs=..., begun=...))

The judge believes three accounts and nobody's memory: the ledger's entries, of a verified export; what
each client wrote down at the moment it was told, after it verified the receipts; and what the operator
has: the connector's record of answers and the list of what its system was asked.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import DecisionOutcome
from tlog.merkle import Frontier, leaf_hash

ENDS: Final = {
    "search_answered": "answered",
    "search_failed": "failed",
    "search_expired": "expired",
    "search_withdrawn": "withdrawn",
}
WITH_ANSWER: Final = frozenset({"answered", "failed"})
WITHOUT_END: Final = frozenset({"pending", "refused"})
REFUSED_AS: Final = {"peek": "SEARCH_UNKNOWN", "reuse": "SEARCH_ID_TAKEN"}
"""What they must be told who ask for another's search, or for another request under a spent id."""
MAY_BE_TOLD: Final = frozenset({"Unavailable", "Overloaded", "TooLate"})
"""Try again, with the same id. Whoever does is never told anything else."""


@dataclass(frozen=True)
class Proved:
    """An entry as a receipt proved it."""

    index: int
    leaf_sha256: str
    size: int
    root: str


@dataclass(frozen=True)
class Told:
    """What a client was told of its search at one moment."""

    client: str
    at: float
    search_id: str
    request_sha256: str
    state: str
    decided: Proved
    end: Proved | None = None
    answer_sha256: str = ""
    doubt: str = ""
    """Why the client did not believe it."""
    asked: float = 0
    """When it asked."""


@dataclass(frozen=True)
class Tried:
    """What a client was told who tried what nobody may."""

    client: str
    at: float
    search_id: str
    what: str
    told: str


@dataclass(frozen=True)
class Failed:
    """A call that ended in an error."""

    client: str
    at: float
    search_id: str
    error: str
    reason: str
    said: str = ""


@dataclass(frozen=True)
class Run:
    """An answer that a connector has on record."""

    connector: str
    search_id: str
    request_sha256: str
    answer_sha256: str
    at: float


@dataclass(frozen=True)
class Begun:
    """That a system was asked to search."""

    search_id: str
    at: float


@dataclass(frozen=True)
class History:
    """All accounts."""

    leaves: Sequence[bytes]
    told: Sequence[Told] = ()
    tried: Sequence[Tried] = ()
    failed: Sequence[Failed] = ()
    runs: Sequence[Run] = ()
    begun: Sequence[Begun] = ()

    @cached_property
    def ledger(self) -> "_Ledger":
        """What the entries say of searches."""
        return _Ledger.read(self.leaves)


@dataclass(frozen=True)
class _Recorded:
    index: int
    entry: Entry

    @property
    def at(self) -> float:
        return self.entry.recorded_at.ToNanoseconds() / 1e9

    @property
    def kind(self) -> str:
        """The state that it puts the search into."""
        return ENDS.get(str(self.entry.WhichOneof("event")), "")

    @property
    def answer_sha256(self) -> str:
        event = getattr(self.entry, str(self.entry.WhichOneof("event")))
        digest: bytes = getattr(event, "answer_sha256", b"")
        return digest.hex()


@dataclass
class _Ledger:
    decided: dict[str, list[_Recorded]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[_Recorded]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def read(cls, leaves: Sequence[bytes]) -> "_Ledger":
        ledger = cls()
        for index, leaf in enumerate(leaves):
            one = _Recorded(index, Entry.FromString(leaf))
            if one.entry.HasField("search_decided"):
                ledger.decided[one.entry.search_id].append(one)
            elif one.kind:
                ledger.ends[one.entry.search_id].append(one)
        return ledger

    def permit(self, search_id: str) -> _Recorded | None:
        """The permit of a search, if it has one."""
        for one in self.decided.get(search_id, ()):
            if one.entry.search_decided.decision.outcome == _PERMITTED:
                return one
        return None

    def state(self, search_id: str) -> str:
        """Where the search stands."""
        if self.permit(search_id) is None:
            return "refused"
        ends = self.ends.get(search_id)
        return ends[0].kind if ends else "pending"


_PERMITTED: Final = DecisionOutcome.DECISION_OUTCOME_PERMITTED


def wrongs_of(history: History) -> list[str]:
    """Everything that must not have happened, one line each. Searches must have had time to end."""
    judges = (
        _one_end_each,
        _told_what_is_recorded,
        _nothing_is_taken_back,
        _checkpoints_agree,
        _nobody_gets_anothers,
        _errors_can_be_retried,
        _nothing_runs_without_a_permit,
        _both_sides_count_the_same,
    )
    return [wrong for judge in judges for wrong in judge(history)]


def counts_of(history: History) -> Mapping[str, int]:
    """How much of everything there was: a history in which nothing happened proves nothing."""
    ledger = history.ledger
    counts = Counter(ledger.state(search_id) for search_id in ledger.decided)
    counts["entries"] = len(history.leaves)
    counts["told"] = len(history.told)
    counts["tried"] = len(history.tried)
    counts["errors"] = len(history.failed)
    counts["runs"] = len(history.runs)
    begun = Counter(one.search_id for one in history.begun)
    counts["begun"] = len(begun)
    counts["begun again"] = sum(times - 1 for times in begun.values())
    ends = Counter(search_id for run in history.runs for search_id in [run.search_id])
    late = [one for one in ends if ledger.state(one) not in WITH_ANSWER]
    counts["answered too late"] = len(late)
    return counts


def in_vain(history: History, waited_s: float) -> list[str]:
    """Searches that expired though there was so much time to answer them."""
    ledger, found = history.ledger, []
    for search_id, ends in ledger.ends.items():
        permit = ledger.permit(search_id)
        if permit is not None and ends[0].kind == "expired":
            deadline = permit.entry.search_decided.deadline.ToNanoseconds() / 1e9
            if deadline - permit.at > waited_s:
                found.append(search_id)
    return found


def _one_end_each(history: History) -> Iterator[str]:
    """A search is decided once; a permitted one ends once, after that; a refused one has no end."""
    ledger = history.ledger
    for search_id, decisions in ledger.decided.items():
        if len(decisions) > 1:
            yield f"{search_id} was decided {len(decisions)} times"
        ends = ledger.ends.get(search_id, [])
        if ledger.permit(search_id) is None:
            if ends:
                yield f"{search_id} was refused and has an end"
            continue
        if len(ends) != 1:
            yield f"{search_id} has {len(ends)} ends"
        if any(one.index < decisions[0].index for one in ends):
            yield f"{search_id} ended before it was decided"
    for search_id in ledger.ends.keys() - ledger.decided.keys():
        yield f"{search_id} has an end and was never decided"


def _told_what_is_recorded(history: History) -> Iterator[str]:
    """Whatever a client was told stands in the ledger, and stood there before."""
    ledger, leaves = history.ledger, history.leaves
    for told in history.told:
        who = f"{told.client} on {told.search_id}"
        if told.doubt:
            yield f"{who}: did not believe it: {told.doubt}"
        for proved in (told.decided, told.end):
            if proved is None:
                continue
            if proved.index >= len(leaves):
                yield f"{who}: entry {proved.index} was proved and is not in the ledger"
            elif sha256(leaves[proved.index]).hexdigest() != proved.leaf_sha256:
                yield f"{who}: entry {proved.index} is another than the one that was proved"
        decisions = ledger.decided.get(told.search_id, [])
        if [one.index for one in decisions[:1]] != [told.decided.index]:
            yield f"{who}: acknowledged, and the ledger has not decided it there"
            continue
        if decisions[0].at > told.at:
            yield f"{who}: acknowledged before it was recorded"
        if decisions[0].entry.search_decided.request_sha256.hex() != told.request_sha256:
            yield f"{who}: the decision is on another request"
        yield from _end_as_told(told, ledger, who)


def _end_as_told(told: Told, ledger: _Ledger, who: str) -> Iterator[str]:
    recorded = ledger.state(told.search_id)
    if told.end is None:
        if told.state not in WITHOUT_END:
            yield f"{who}: told {told.state} without an entry"
        if told.answer_sha256:
            yield f"{who}: an answer was released without an entry"
        if told.state == "refused" and recorded != "refused":
            yield f"{who}: told refused, the ledger says {recorded}"
        return
    if told.state != recorded:
        yield f"{who}: told {told.state}, the ledger says {recorded}"
        return
    end = ledger.ends[told.search_id][0]
    if end.index != told.end.index:
        yield f"{who}: told of an end at {told.end.index}, the ledger's is at {end.index}"
    if end.at > told.at:
        yield f"{who}: told of its end before it was recorded"
    if told.answer_sha256 and told.answer_sha256 != end.answer_sha256:
        yield f"{who}: was given another answer than the recorded one"


def _nothing_is_taken_back(history: History) -> Iterator[str]:
    """What has ended stays ended for who was told so, and an answer that is on record is given out."""
    by_search: dict[tuple[str, str], list[Told]] = defaultdict(list)
    for told in history.told:
        by_search[told.client, told.search_id].append(told)
    for (client, search_id), all_told in by_search.items():
        states = [told.state for told in sorted(all_told, key=lambda told: told.at)]
        ended = min(
            (told.at for told in all_told if told.state not in WITHOUT_END), default=math.inf
        )
        # Two calls at once may be answered in any order.
        if any(told.state == "pending" and told.asked > ended for told in all_told):
            yield f"{client} on {search_id}: told {states}: an end was taken back"
        given = any(told.answer_sha256 for told in all_told)
        if states[-1] in WITH_ANSWER and not given:
            yield f"{client} on {search_id}: told {states[-1]}, and never given the answer"


def _checkpoints_agree(history: History) -> Iterator[str]:
    """Every tree that anybody was shown is the beginning of the one tree."""
    shown: dict[int, set[str]] = defaultdict(set)
    for told in history.told:
        for proved in (told.decided, told.end):
            if proved is not None:
                shown[proved.size].add(proved.root)
    frontier, roots = Frontier(), dict[int, str]()
    for leaf in history.leaves:
        frontier.append(leaf_hash(leaf))
        if frontier.size in shown:
            roots[frontier.size] = frontier.root().hex()
    for size, claimed in sorted(shown.items()):
        if claimed != {roots.get(size)}:
            yield f"a checkpoint of {size} entries is not of this ledger"


def _nobody_gets_anothers(history: History) -> Iterator[str]:
    """Searches are told to their origin alone, and an id stands for one request."""
    for told in history.told:
        for one in history.ledger.decided.get(told.search_id, ()):
            origin = one.entry.search_decided.summary.origin_agency
            if origin != told.client:
                yield f"{told.client} was told of {told.search_id}, which is {origin}'s"
    for tried in history.tried:
        if tried.told != REFUSED_AS[tried.what]:
            yield f"{tried.client} tried to {tried.what} {tried.search_id}: told {tried.told}"


def _errors_can_be_retried(history: History) -> Iterator[str]:
    """Faults are told as what can be retried."""
    for failed in history.failed:
        if failed.error not in MAY_BE_TOLD:
            yield f"{failed.client} on {failed.search_id}: told {failed.error} {failed.reason}"


def _nothing_runs_without_a_permit(history: History) -> Iterator[str]:
    """What a system was asked, and what a connector answered, was permitted on record before."""
    ledger = history.ledger
    for begun in history.begun:
        permit = ledger.permit(begun.search_id)
        if permit is None:
            yield f"{begun.search_id} was run without a permit"
        elif permit.at > begun.at:
            yield f"{begun.search_id} was run before its permit was recorded"
    for run in history.runs:
        permit = ledger.permit(run.search_id)
        if permit is None:
            yield f"{run.connector} answered {run.search_id} without a permit"
        elif permit.at > run.at:
            yield f"{run.connector} answered {run.search_id} before its permit was recorded"
        elif permit.entry.search_decided.request_sha256.hex() != run.request_sha256:
            yield f"{run.connector} answered {run.search_id}, another request than was permitted"


def _both_sides_count_the_same(history: History) -> Iterator[str]:
    """A search has one answer at the operator's; the ledger's is that; more was only too late."""
    ledger = history.ledger
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        runs[run.search_id].append(run)
    for search_id, all_runs in runs.items():
        if len(all_runs) > 1:
            where = sorted(run.connector for run in all_runs)
            yield f"{search_id} has {len(all_runs)} answers on record, at {where}"
        state = ledger.state(search_id)
        if state in WITH_ANSWER:
            recorded = ledger.ends[search_id][0].answer_sha256
            if recorded not in {run.answer_sha256 for run in all_runs}:
                yield f"{search_id}: the ledger records another answer than the connector"
        elif state == "pending":
            yield f"{search_id}: the connector has an answer and the ledger no end"
    for search_id in ledger.ends:
        if ledger.state(search_id) in WITH_ANSWER and search_id not in runs:
            yield f"{search_id}: the ledger records an answer that no connector has"
