"""Searches of some years, drawn from a seed, as the real code of broker and ledger puts them on record."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from broker.record import checked_entry, decided_entry
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1.policy_pb2 import EvaluateResponse, Parties
from countersign.type.v1 import search_pb2 as pb
from countersign.type.v1.circumstances_pb2 import Circumstances, Emergency, RequestRoute
from directive.evaluate import Evaluator
from ledger.entry import Completer
from ledger.vault import commitments_of, unsealed
from shared.clock import stamp
from shared.registry import Registry
from support.circumstances import instrument
from support.clocks import ClockThatStandsStill
from support.directives import BURBANK, LAPD
from support.vaults import KEYRING, SEALER

BROKER: Final = "spiffe://countersign.test/service/broker"
BEGAN: Final = datetime(2024, 1, 1, tzinfo=UTC)
YEARS: Final = 2

OFFICERS: Final = {
    LAPD: ("lapd-40123",) * 6 + ("lapd-40777", "lapd-50999", "lapd-31007", "nobody"),
    BURBANK: ("burbank-117",) * 8 + ("lapd-40123", "nobody"),
}
_COMPLETER = Completer(BROKER, ClockThatStandsStill(), sealer=SEALER)


@dataclass(frozen=True)
class Drawn:
    """A search before it is decided."""

    facts: pb.SearchFacts
    officer: str
    at: datetime


def _often(chance: random.Random, usual: int, *others: int) -> int:
    return usual if chance.random() < 0.8 else chance.choice(others)


def searches_of_years(
    count: int, seed: int, officers: Mapping[str, Sequence[str]] = OFFICERS
) -> Iterator[Drawn]:
    """So many searches in the order of their time, the same for the same seed."""
    chance = random.Random(seed)
    step = timedelta(days=365 * YEARS) / count
    for number in range(count):
        origin = LAPD if chance.random() < 0.85 else BURBANK
        system = "lacris" if chance.random() < 0.95 else "facefind"
        severity = _often(chance, 1, 2, 3, 4, 5)
        facts = pb.SearchFacts(
            search_id=str(UUID(int=chance.getrandbits(128), version=4)),
            origin_agency=origin,
            system=system,
            gallery="lacris-booking" if system == "lacris" else "facefind-web",
            purpose=pb.Purpose.ValueType(_often(chance, 1, 2, 3, 4, 5, 7, 8)),
            suspicion=pb.SuspicionLevel.ValueType(_often(chance, 2, 1, 3, 4)),
            offence=pb.Offence(
                nibrs_code=chance.choice(["120", "09A", "13A", ""]),
                statute="Cal. Penal Code s. 211" if chance.random() < 0.3 else "",
                attempt=chance.random() < 0.1,
                severity=pb.OffenceSeverity.ValueType(severity),
            ),
            provenance=pb.ProbeProvenance.ValueType(_often(chance, 1, 2, 3, 4, 5, 6, 7, 9)),
            capture_mode=pb.CaptureMode.ValueType(_often(chance, 2, 1, 3, 5)),
            case_number=f"26-{chance.randrange(10**6):06}" if chance.random() < 0.97 else "",
            narrative="a witness saw him" if chance.random() < 0.5 else "",
            candidates_max=chance.choice([0, 0, 5, 20, 50]),
        )
        if chance.random() < 0.97:
            facts.beneficiary_agency = origin if chance.random() < 0.93 else BURBANK
        if chance.random() < 0.5:
            facts.circumstances.CopyFrom(_circumstances(chance))
            facts.instrument_number = f"SW-{number}" if chance.random() < 0.2 else ""
        moment = BEGAN + step * number + timedelta(microseconds=chance.randrange(1000))
        yield Drawn(facts, chance.choice(officers[origin]), moment)


def _circumstances(chance: random.Random) -> Circumstances:
    said = Circumstances()
    if chance.random() < 0.7:
        said.route = chance.choice(
            [RequestRoute.REQUEST_ROUTE_DIRECT] * 3 + [RequestRoute.Value("REQUEST_ROUTE_INFORMAL")]
        )
    if chance.random() < 0.5:
        said.instrument.CopyFrom(instrument())
    if chance.random() < 0.3:
        said.emergency.CopyFrom(Emergency(claimed=chance.random() < 0.5))
    return said


def pending_entry(
    drawn: Drawn, evaluator: Evaluator, registry: Registry, *, checked: bool = False
) -> PendingEntry:
    """The search decided, as the broker hands it to the ledger."""
    parties = registry.parties(drawn.facts)
    evaluated = EvaluateResponse(
        decision=evaluator.evaluate(drawn.facts, drawn.officer, drawn.at),
        parties=Parties(
            origin_agency=parties.origin,
            operator_agency=parties.operator or "",
            gallery_owner=parties.gallery_owner or "",
            jurisdictions=parties.jurisdictions,
            gallery_class=parties.gallery_class,
        ),
    )
    if checked:
        return checked_entry(drawn.facts, drawn.officer, evaluated)
    return decided_entry(drawn.facts, drawn.officer, evaluated, bytes(32), drawn.at)


def kept_and_opened(pending: PendingEntry) -> tuple[Entry, dict[str, str]]:
    """The entry from the bytes that the ledger keeps, and its openings from what it sealed."""
    completed = _COMPLETER.complete(pending, "entry")
    commitments = commitments_of(completed.leaf)
    opened = [unsealed(KEYRING, one, commitments[one.field]) for one in completed.openings]
    entry = Entry.FromString(completed.leaf)
    entry.recorded_at.CopyFrom(stamp(BEGAN))
    return entry, {one.field: one.value for one in opened if one is not None}
