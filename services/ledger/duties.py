"""Counts the duties of which no entry says what became of them, and those whose term is past.

A dry run obliges nobody: only decisions on searches count.
"""

from ledger.index import QueryIndex
from ledger.questions import OpenDuties
from shared.entry_facts import DECIDED


def open_duties(index: QueryIndex, size: int, now_us: int) -> list[OpenDuties]:
    """Count them by kind, as of this size and time. A kind that ever came with a decision is there, at 0."""
    rows = index.connection.execute(
        "SELECT o.kind, count(*) FILTER (said IS NULL),"
        " count(*) FILTER (said IS NULL AND o.due_us < ?)"
        " FROM duties o JOIN entries e ON e.i = o.d"
        " LEFT JOIN (SELECT DISTINCT d, kind, rule, party, true AS said FROM discharges WHERE i < ?) x"
        " ON x.d = o.d AND x.kind = o.kind AND x.rule = o.rule AND x.party = o.party"
        " WHERE e.i < ? AND e.kind = ? GROUP BY o.kind ORDER BY o.kind",
        [now_us, size, size, DECIDED],
    )
    return [OpenDuties(*row) for row in rows.fetchall()]
