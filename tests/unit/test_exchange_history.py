"""The judge of the fault suite: it says nothing of a good history, and something of every bad one."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from countersign.ledger.v1.entry_pb2 import (
    Entry,
    SearchAnswered,
    SearchDecided,
    SearchExpired,
    SearchSummary,
)
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome
from support.exchange_history import (
    Begun,
    Failed,
    History,
    Proved,
    Run,
    Told,
    Tried,
    counts_of,
    wrongs_of,
)
from tlog.merkle import leaf_hash, root_of_leaves

ANSWERED, REFUSED, EXPIRED, UNHEARD = "answered-1", "refused-1", "expired-1", "unheard-1"
LAPD, BURBANK = "CA0194200", "CA0191200"
REQUEST, ANSWER, OTHER = "aa" * 32, "bb" * 32, "cc" * 32
PERMIT = DecisionOutcome.DECISION_OUTCOME_PERMITTED
REFUSAL = DecisionOutcome.DECISION_OUTCOME_REFUSED


def decided(
    search_id: str, at: int, outcome: DecisionOutcome.ValueType = PERMIT, agency: str = LAPD
) -> Entry:
    event = SearchDecided(
        summary=SearchSummary(origin_agency=agency),
        request_sha256=bytes.fromhex(REQUEST),
        decision=Decision(outcome=outcome),
    )
    return recorded(Entry(search_id=search_id, search_decided=event), at)


def answered(search_id: str, at: int, answer: str = ANSWER) -> Entry:
    event = SearchAnswered(answer_sha256=bytes.fromhex(answer))
    return recorded(Entry(search_id=search_id, search_answered=event), at)


def expired(search_id: str, at: int) -> Entry:
    return recorded(Entry(search_id=search_id, search_expired=SearchExpired()), at)


def recorded(entry: Entry, at: int) -> Entry:
    entry.recorded_at.FromSeconds(at)
    return entry


ENTRIES = [
    decided(ANSWERED, 10),
    decided(REFUSED, 11, REFUSAL),
    answered(ANSWERED, 20),
    decided(EXPIRED, 21, agency=BURBANK),
    expired(EXPIRED, 30),
    decided(UNHEARD, 31),
    expired(UNHEARD, 40),
]


def proved(index: int, entries: list[Entry] = ENTRIES) -> Proved:
    """As a receipt made at once would."""
    leaves = [entry.SerializeToString(deterministic=True) for entry in entries[: index + 1]]
    root = root_of_leaves([leaf_hash(leaf) for leaf in leaves])
    return Proved(index, sha256(leaves[index]).hexdigest(), index + 1, root.hex())


PENDING = Told(LAPD, 12, ANSWERED, REQUEST, "pending", proved(0))
ENDED = replace(PENDING, at=22, state="answered", end=proved(2), answer_sha256=ANSWER)
WAS_REFUSED = Told(LAPD, 12, REFUSED, REQUEST, "refused", proved(1))
HAS_EXPIRED = Told(BURBANK, 31, EXPIRED, REQUEST, "expired", proved(3), proved(4))
RUN = Run("connector-lacris", ANSWERED, REQUEST, ANSWER, 15)
TOO_LATE = Run("connector-lacris", EXPIRED, REQUEST, OTHER, 35)
GOOD = {
    "told": (PENDING, ENDED, WAS_REFUSED, HAS_EXPIRED),
    "tried": (
        Tried(BURBANK, 13, ANSWERED, "peek", "SEARCH_UNKNOWN"),
        Tried(LAPD, 13, ANSWERED, "reuse", "SEARCH_ID_TAKEN"),
    ),
    "failed": (Failed(LAPD, 9, ANSWERED, "Unavailable", "SERVICE_UNAVAILABLE"),),
    "runs": (RUN, TOO_LATE),
    "begun": (Begun(ANSWERED, 12), Begun(ANSWERED, 14), Begun(EXPIRED, 22)),
}


def history(entries: list[Entry] = ENTRIES, **changes: Any) -> History:
    leaves = [entry.SerializeToString(deterministic=True) for entry in entries]
    return History(leaves=leaves, **{**GOOD, **changes})


def with_told(*told: Told) -> History:
    return history(told=(*GOOD["told"], *told))


def test_a_good_history_is_not_blamed_and_counted() -> None:
    assert wrongs_of(history()) == []
    counts = counts_of(history())
    assert (counts["answered"], counts["refused"], counts["expired"]) == (1, 1, 2)
    assert (counts["begun again"], counts["answered too late"], counts["entries"]) == (1, 1, 7)


def test_two_calls_at_once_may_be_answered_in_any_order() -> None:
    assert wrongs_of(with_told(replace(PENDING, at=24, asked=21))) == []


BAD: dict[str, Callable[[], History]] = {
    "has 2 ends": lambda: history([*ENTRIES, expired(ANSWERED, 50)]),
    f"{UNHEARD} has 0 ends": lambda: history(ENTRIES[:6]),
    "was decided 2 times": lambda: history([*ENTRIES, decided(ANSWERED, 50)]),
    "was refused and has an end": lambda: history([*ENTRIES, expired(REFUSED, 50)]),
    "was never decided": lambda: history([*ENTRIES, expired("unknown-1", 50)]),
    "ended before it was decided": lambda: history(
        [*ENTRIES, expired("early-1", 50), decided("early-1", 51)]
    ),
    "the ledger has not decided it there": lambda: with_told(
        Told(LAPD, 12, "lost-1", REQUEST, "pending", proved(0))
    ),
    "entry 9 was proved and is not in the ledger": lambda: with_told(
        replace(PENDING, decided=replace(proved(0), index=9))
    ),
    "is another than the one that was proved": lambda: with_told(
        replace(PENDING, decided=replace(proved(0), leaf_sha256=OTHER))
    ),
    "acknowledged before it was recorded": lambda: with_told(replace(PENDING, at=9)),
    "the decision is on another request": lambda: with_told(replace(PENDING, request_sha256=OTHER)),
    "did not believe it: RECEIPT_INVALID": lambda: with_told(
        replace(PENDING, doubt="RECEIPT_INVALID")
    ),
    "told answered without an entry": lambda: with_told(replace(ENDED, end=None)),
    "an answer was released without an entry": lambda: with_told(
        replace(PENDING, answer_sha256=ANSWER)
    ),
    "told refused, the ledger says answered": lambda: with_told(replace(PENDING, state="refused")),
    "told expired, the ledger says answered": lambda: with_told(replace(ENDED, state="expired")),
    "told of an end at 4": lambda: with_told(replace(ENDED, end=proved(4))),
    "told of its end before it was recorded": lambda: with_told(replace(ENDED, at=19)),
    "was given another answer": lambda: with_told(replace(ENDED, answer_sha256=OTHER)),
    "an end was taken back": lambda: with_told(replace(PENDING, at=24, asked=23)),
    "never given the answer": lambda: history(told=(replace(ENDED, answer_sha256=""),)),
    "a checkpoint of 1 entries is not of this ledger": lambda: with_told(
        replace(PENDING, decided=replace(proved(0), root=OTHER))
    ),
    "a checkpoint of 99 entries is not of this ledger": lambda: with_told(
        replace(PENDING, decided=replace(proved(0), size=99))
    ),
    f"which is {LAPD}'s": lambda: with_told(replace(ENDED, client=BURBANK)),
    "tried to peek": lambda: history(tried=(Tried(BURBANK, 1, ANSWERED, "peek", "all of it"),)),
    "tried to reuse": lambda: history(tried=(Tried(LAPD, 1, ANSWERED, "reuse", "taken"),)),
    "told Broken": lambda: history(failed=(Failed(LAPD, 1, ANSWERED, "Broken", "INTERNAL"),)),
    f"{REFUSED} was run without a permit": lambda: history(begun=(Begun(REFUSED, 50),)),
    "was run before its permit was recorded": lambda: history(begun=(Begun(ANSWERED, 9),)),
    f"answered {REFUSED} without a permit": lambda: history(
        runs=(RUN, replace(RUN, search_id=REFUSED))
    ),
    "before its permit was recorded": lambda: history(runs=(replace(RUN, at=9),)),
    "another request than was permitted": lambda: history(
        runs=(replace(RUN, request_sha256=OTHER),)
    ),
    "has 2 answers on record": lambda: history(runs=(RUN, replace(RUN, connector="other"))),
    "another answer than the connector": lambda: history(runs=(replace(RUN, answer_sha256=OTHER),)),
    "and the ledger no end": lambda: history(
        ENTRIES[:6], runs=(RUN, replace(RUN, search_id=UNHEARD, at=35))
    ),
    "that no connector has": lambda: history(runs=()),
}


@pytest.mark.parametrize("said", BAD)
def test_a_bad_history_is_blamed_for_it(said: str) -> None:
    assert any(said in wrong for wrong in wrongs_of(BAD[said]()))
