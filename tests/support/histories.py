"""A short history with entries of every sort that questions are asked about."""

from pathlib import Path

from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.event_pb2 import DISCHARGE_RESULT_DONE
from countersign.type.v1.decision_pb2 import RULE_EFFECT_FORBID, RULE_EFFECT_PERMIT, SEAT_ORIGIN
from countersign.type.v1.search_pb2 import (
    GALLERY_CLASS_BOOKING_PHOTOS,
    OFFENCE_SEVERITY_FELONY,
    PURPOSE_CRIMINAL_INVESTIGATION,
    SUSPICION_LEVEL_REASONABLE_SUSPICION,
)
from ledger.log import opened
from ledger.sqlite_storage import SqliteDatabase
from support.ledgers import LAPD, SIGNER, complete, decided, failed, new_log, rejected, search_id

SHERIFF = "CA0190000"


def decision(
    number: int, *, permitted: bool = True, agency: str = LAPD, offence: str = "09A"
) -> PendingEntry:
    """A decision on search `number` with facts, rules, and a duty when it is a permit of LAPD's."""
    pending = decided(number, permitted=permitted, agency=agency)
    event = pending.entry.search_decided
    summary = event.summary
    summary.beneficiary_agency = agency
    summary.operator_agency = summary.gallery_owner = SHERIFF
    summary.jurisdictions.append("US-CA")
    summary.gallery = "lacris-booking"
    summary.gallery_class = GALLERY_CLASS_BOOKING_PHOTOS
    summary.purpose = PURPOSE_CRIMINAL_INVESTIGATION
    summary.suspicion = SUSPICION_LEVEL_REASONABLE_SUSPICION
    summary.offence.nibrs_code = offence
    summary.offence.severity = OFFENCE_SEVERITY_FELONY
    if agency != LAPD:
        return pending
    verdict = event.decision.verdicts.add(seat=SEAT_ORIGIN, party=LAPD)
    if permitted:
        verdict.rules.add(id="LASD-1", citation="LACRIS policy 3.1", effect=RULE_EFFECT_PERMIT)
        event.decision.obligations.add(kind="peer_review", rule_id="LASD-1", party=SHERIFF)
    else:
        verdict.rules.add(
            id="LAPD-4", citation="LAPD Directive of November 2020, 4", effect=RULE_EFFECT_FORBID
        )
    return pending


def answered(number: int, decided_index: int) -> PendingEntry:
    """The end of search `number` with candidates."""
    pending = PendingEntry(idempotency_key=f"end/{search_id(number)}")
    pending.entry.search_id = search_id(number)
    event = pending.entry.search_answered
    event.decided_index = decided_index
    event.origin_agency = LAPD
    event.system, event.gallery = "lacris", "lacris-booking"
    event.candidates_returned = 7
    return pending


def discharged(number: int, decided_index: int) -> PendingEntry:
    """A peer review of search `number`."""
    pending = PendingEntry()
    pending.entry.search_id = search_id(number)
    event = pending.entry.obligation_discharged
    event.decided_index = decided_index
    event.origin_agency = LAPD
    event.kind, event.rule_id, event.party = "peer_review", "LASD-1", SHERIFF
    event.result = DISCHARGE_RESULT_DONE
    return pending


def _failed(number: int, decided_index: int) -> PendingEntry:
    pending = failed(number)
    pending.entry.search_failed.decided_index = decided_index
    pending.entry.search_failed.system = "lacris"
    return pending


def _turned_away() -> PendingEntry:
    pending = rejected()
    pending.entry.request_rejected.caller = f"spiffe://countersign.test/agency/{LAPD}"
    return pending


HISTORY = (
    decision(0),
    decision(1, permitted=False),
    answered(0, 0),
    decision(2, offence="13A"),
    _failed(2, 3),
    discharged(0, 0),
    decision(3, agency=SHERIFF),
    _turned_away(),
)
"""Indexes 0 to 7: answered, refused, failed and open searches, one duty done and one open."""


async def log_with_history(folder: Path) -> SqliteDatabase:
    """A log with these entries."""
    database = new_log(folder)
    async with opened(database.open_for_writing(), SIGNER) as log:
        for one in HISTORY:
            await log.sequencer.append(complete(one))
    return database
