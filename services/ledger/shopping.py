"""Finds where an agency asked several routes for like facts until one permitted.

An agency may try a search before it submits it, and each try is on record. Who is refused by one system
and tries the next may have misunderstood a rule, or may be looking for whoever lets it through: here both
are seen.

A permit is shown with what was refused of like facts since the permit before it, if another route is
among it.
"""

from typing import Final

from ledger.index import QueryIndex
from ledger.index_queries import PERMITTED, REFERRED, Sql
from ledger.questions import Dimension, FoundShopping, Question, Role, Shopping, ShoppingQuestion
from shared.entry_facts import DECIDED
from shared.kinds import KINDS

LISTED_MAX: Final = 20
"""Of more refusals the last are listed, and all are counted."""

_ATTEMPTS: Final = (KINDS["search_checked"], DECIDED)
_COLUMNS: Final = {Dimension.OFFENCE: ("e.offence", "e.statute")}


def shopping(index: QueryIndex, asked: ShoppingQuestion, count_max: int) -> FoundShopping:
    """Find permits by index, at most so many."""
    columns = [one for dim in asked.alike for one in _COLUMNS.get(dim, (dim.value,))]
    alike = ", ".join(["e.origin_agency", *columns])
    attempts = Sql(
        Question(
            size=asked.size,
            # What is older than any refusal that counts need not be looked at.
            from_us=None if asked.from_us is None else asked.from_us - asked.within_us,
            until_us=asked.until_us,
            agency=asked.agency,
            role=Role.ORIGIN,
            kinds=_ATTEMPTS,
            indexes=asked.indexes,
        )
    )
    rows = index.connection.execute(
        "WITH attempts AS ("  # noqa: S608  # constants
        " SELECT e.i AS i, e.recorded_us AS at, e.outcome IN (?, ?) AS permitted,"
        " e.system || '/' || e.gallery AS route,"
        f" dense_rank() OVER (ORDER BY {alike}) AS likeness"
        f" FROM entries e{attempts.joins} WHERE {attempts.conditions}"
        "), runs AS ("
        " SELECT *, coalesce(sum(CAST(permitted AS INTEGER)) OVER ("
        " PARTITION BY likeness ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
        " ), 0) AS run FROM attempts"
        ") SELECT p.i, list(r.i ORDER BY r.i DESC)[1:?], count(*),"
        " count(DISTINCT r.route) FILTER (r.route <> p.route) AS routes"
        " FROM runs p JOIN runs r ON r.likeness = p.likeness AND r.run = p.run"
        " WHERE p.permitted AND NOT r.permitted AND r.at >= p.at - ? AND p.i >= ? AND p.at >= ?"
        " GROUP BY p.i HAVING routes >= ? ORDER BY p.i LIMIT ?",
        [
            *(PERMITTED, REFERRED, *attempts.values),
            *(LISTED_MAX, asked.within_us, asked.start_index),
            *(asked.from_us or 0, asked.routes_min, count_max + 1),
        ],
    ).fetchall()
    cases = [
        Shopping(permit, tuple(sorted(refused)), refusals, routes)
        for permit, refused, refusals, routes in rows
    ]
    if len(cases) > count_max:
        return FoundShopping(cases[:count_max], cases[count_max].permit)
    return FoundShopping(cases, None)
