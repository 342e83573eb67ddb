"""Questions to the query index and how they become SQL.

Every answer is of one size of the tree: what was appended later is not seen, so a question asked again for
the same size has the same answer, from this index or from one made anew.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from ledger.index import QueryIndex
from ledger.questions import (
    Counts,
    Dimension,
    EndState,
    Found,
    Group,
    Question,
    Role,
    SpanCounts,
)
from shared.entry_facts import DECIDED, ENDS

GROUPS_MAX: Final = 10_000
"""More groups than that are no table that anybody reads; the answer stays within one message."""

PERMITTED, REFUSED, REFERRED = 1, 2, 3
"""DecisionOutcome."""


_TABLES: Final = {  # a row for each value of each entry
    Dimension.AGENCY: "agencies",
    Dimension.JURISDICTION: "jurisdictions",
    Dimension.RULE: "rules",
    Dimension.CITATION: "citations",
}
_SEVERAL: Final = frozenset((*_TABLES, Dimension.DUTY, Dimension.DUTY_STATE))
"""Dimensions of which an entry may have several values."""


def page(index: QueryIndex, question: Question, count_max: int) -> Found:
    """Find entries by index, at most so many."""
    sql = Sql(question)
    rows = index.connection.execute(
        f"SELECT e.i FROM entries e{sql.joins} WHERE {sql.conditions}"  # noqa: S608
        " ORDER BY e.i LIMIT ?",
        [*sql.values, count_max + 1],
    )
    indexes = [row[0] for row in rows.fetchall()]
    if len(indexes) > count_max:
        return Found(indexes[:count_max], indexes[count_max])
    return Found(indexes, None)


def last(index: QueryIndex, question: Question) -> int | None:
    """Find the last entry; None when there is none."""
    sql = Sql(question)
    row = index.connection.execute(
        f"SELECT max(e.i) FROM entries e{sql.joins} WHERE {sql.conditions}",  # noqa: S608
        sql.values,
    ).fetchone()
    return None if row is None else row[0]


def count(index: QueryIndex, question: Question, dimensions: tuple[Dimension, ...]) -> Counts:
    """Count entries in groups."""
    if len(dimensions) == 1 and dimensions[0] in _TABLES:
        return _counts(index, question, dimensions, _rows_alone(index, question, dimensions[0]))
    sql = Sql(question, dimensions)
    values = ", ".join(dimension.value for dimension in dimensions) or "1"
    order = ", ".join(str(number + 1) for number in range(len(dimensions))) or "1"
    rows = index.connection.execute(
        f"SELECT {values}, count(*), CAST(sum(e.candidates) AS BIGINT)"  # noqa: S608
        f" FROM entries e{sql.joins} WHERE {sql.conditions}"
        f" GROUP BY {order} ORDER BY {order} LIMIT ?",
        [*sql.values, GROUPS_MAX + 1],
    ).fetchall()
    return _counts(index, question, dimensions, rows)


def _counts(
    index: QueryIndex, question: Question, dimensions: tuple[Dimension, ...], rows: list[Any]
) -> Counts:
    if len(rows) > GROUPS_MAX:
        return Counts(None, 0)
    groups = [Group(tuple(row[: len(dimensions)]), row[-2], row[-1] or 0) for row in rows]
    once = _SEVERAL.isdisjoint(dimensions)
    return Counts(groups, sum(g.entries for g in groups) if once else _entries(index, question))


def _rows_alone(index: QueryIndex, question: Question, dimension: Dimension) -> list[Any]:
    """Count by one dimension that has a table of its own: entries need be looked at only to choose some."""
    start, end = question.bounds
    chosen = ""
    values: list[object] = [start, end]
    if replace(question, start_index=0, end_index=None) != Question(size=question.size):
        sql = Sql(question)
        chosen = f" AND i IN (SELECT e.i FROM entries e{sql.joins} WHERE {sql.conditions})"  # noqa: S608
        values += sql.values
    return index.connection.execute(
        f"SELECT value, count(*), CAST(sum(candidates) AS BIGINT) FROM {_TABLES[dimension]}"  # noqa: S608
        f" WHERE i >= ? AND i < ?{chosen} GROUP BY 1 ORDER BY 1 LIMIT ?",
        [*values, GROUPS_MAX + 1],
    ).fetchall()


def _entries(index: QueryIndex, question: Question) -> int:
    sql = Sql(question)
    asked = f"SELECT count(*) FROM entries e{sql.joins} WHERE {sql.conditions}"  # noqa: S608
    return int((index.connection.execute(asked, sql.values).fetchone() or (0,))[0])


def span(index: QueryIndex, first: int, until_us: int, size: int) -> SpanCounts:
    """Count the entries from an index to the first that was recorded at or after a time."""
    (end,) = index.connection.execute(
        "SELECT coalesce(min(i), ?) FROM entries WHERE i >= ? AND i < ? AND recorded_us >= ?",
        [size, first, size, until_us],
    ).fetchone() or (size,)
    totals = index.connection.execute(
        "SELECT origin_agency, kind, count(*) FROM entries WHERE i >= ? AND i < ?"
        " GROUP BY ALL ORDER BY ALL",
        [first, end],
    ).fetchall()
    still_open = index.connection.execute(
        "SELECT i FROM entries WHERE i < ? AND kind = ? AND outcome IN (?, ?)"
        " AND i NOT IN (SELECT d FROM ends WHERE i < ?) ORDER BY i",
        [end, DECIDED, PERMITTED, REFERRED, end],
    ).fetchall()
    return SpanCounts(end, totals, [row[0] for row in still_open])


@dataclass
class Sql:
    """The parts of a statement. Text comes from constants only; what was asked for is in `values`."""

    question: Question
    dimensions: tuple[Dimension, ...] = ()
    joins: str = ""
    clauses: list[str] = field(default_factory=list)
    values: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._join()
        self._bounds()
        self._facts()
        self._derived()

    @property
    def conditions(self) -> str:
        """All clauses together."""
        return " AND ".join(self.clauses)

    def _where(self, clause: str, *values: object) -> None:
        self.clauses.append(clause)
        self.values += values

    def _join(self) -> None:
        """Joins come first in the text, so that their values do too."""
        asked = set(self.dimensions)
        if Dimension.END_STATE in asked or self.question.end_state is not None:
            self.joins += " LEFT JOIN (SELECT d, kind FROM ends WHERE i < ?) n ON n.d = e.d"
            self.values.append(self.question.size)
        for dimension, table in _TABLES.items():
            if dimension in asked:
                name = dimension.value.partition(".")[0]
                self.joins += f" JOIN {table} {name} ON {name}.i = e.i"
        if told := [d for d in (Dimension.DUTY, Dimension.DUTY_STATE) if d in asked]:
            # The same duty to two parties is one entry with that duty.
            columns = ", ".join(one.value.removeprefix("u.") for one in told)
            # Most decisions have no discharge at all, and there nothing needs to be sorted out.
            without = "SELECT d, kind, 1 AS state FROM duties WHERE first_of_kind AND"
            if told == [Dimension.DUTY]:
                without = "SELECT d, kind FROM duties WHERE first_of_kind AND"
            elif told == [Dimension.DUTY_STATE]:
                without = "SELECT DISTINCT d, 1 AS state FROM duties WHERE"
            several = f"SELECT DISTINCT d, {columns} FROM ({_DUTIES}) WHERE d IN ({_TOUCHED})"  # noqa: S608
            distinct = f"{without} d NOT IN ({_TOUCHED}) UNION ALL {several}"
            self.joins += f" LEFT JOIN ({distinct}) u ON u.d = e.d"
            self.values += [self.question.size] * 3
        if Dimension.END_STATE in asked:
            # Its expression is too long to be repeated.
            self.joins += f" CROSS JOIN LATERAL (SELECT {_END_STATE} AS end_state) s"

    def _bounds(self) -> None:
        asked = self.question
        self._where("e.i >= ? AND e.i < ?", *asked.bounds)
        for bound, moment in ((">=", asked.from_us), ("<", asked.until_us)):
            if moment is not None:
                self._where(f"e.recorded_us {bound} ?", moment)
        for column, listed in (("i", asked.indexes), ("origin_agency", asked.origins)):
            if listed is not None:
                many = "CAST(? AS BIGINT[])" if column == "i" else "CAST(? AS VARCHAR[])"
                self._where(f"e.{column} IN (SELECT unnest({many}))", list(listed))

    def _facts(self) -> None:
        asked = self.question
        for column in ("search_id", "system", "gallery", "offence", "reason"):
            if value := getattr(asked, column):
                self._where(f"e.{column} = ?", value)
        for column, wanted in (
            ("kind", asked.kinds),
            ("gallery_class", asked.gallery_classes),
            ("purpose", asked.purposes),
            ("severity", asked.severities),
            ("suspicion", asked.suspicions),
            ("route", asked.routes),
            ("protected_basis", asked.protected_bases),
            ("probe_edit", asked.probe_edits),
            ("investigation", asked.investigations),
            ("charge_status", asked.charge_statuses),
            ("instrument", asked.instruments),
            ("emergency", (asked.emergency,) if asked.emergency else ()),
            ("outcome", (asked.outcome,) if asked.outcome else ()),
        ):
            if wanted:
                places = ", ".join("?" * len(wanted))
                self._where(f"e.{column} IN ({places})", *wanted)
        if asked.agency:
            columns = [asked.role] if asked.role else list(Role)
            either = " OR ".join(f"e.{column.value} = ?" for column in columns)
            self._where(f"({either})", *[asked.agency] * len(columns))

    def _derived(self) -> None:
        asked = self.question
        for table, condition, value in (
            ("jurisdictions", "value = ?", asked.jurisdiction),
            ("rules", "value = ?", asked.rule),
            ("citations", "starts_with(value, ?)", asked.citation),
        ):
            if value:
                self._where(f"e.i IN (SELECT i FROM {table} WHERE {condition})", value)  # noqa: S608
        if asked.end_state is not None:
            self._where(f"{_END_STATE} = ?", asked.end_state.value)
        if asked.duty or asked.duty_state is not None:
            self._duty(asked)

    def _duty(self, asked: Question) -> None:
        clauses, sought = ["true"], list[object]([asked.size])
        if asked.duty:
            clauses.append("kind = ?")
            sought.append(asked.duty)
        if asked.duty_state is not None:
            clauses.append("state = ?")
            sought.append(asked.duty_state.value)
        self._where(
            f"e.d IN (SELECT d FROM ({_DUTIES}) WHERE {' AND '.join(clauses)})",  # noqa: S608
            *sought,
        )


_TOUCHED: Final = "SELECT d FROM discharges WHERE i < ?"
_DUTIES: Final = (
    # DischargeResult 1, 2, 3 are DONE, WAIVED, FAILED.
    "SELECT o.d AS d, o.kind AS kind, 1 + coalesce(x.result, 0) AS state FROM duties o"
    " LEFT JOIN (SELECT d, kind, rule, party, arg_max(result, i) AS result FROM discharges"
    " WHERE i < ? GROUP BY d, kind, rule, party) x"
    " ON x.d = o.d AND x.kind = o.kind AND x.rule = o.rule AND x.party = o.party"
)


def _end_state() -> str:
    """Of the search that an entry belongs to; null where it belongs to no decided search."""
    by_kind = " ".join(
        f"WHEN n.kind = {kind} THEN {state.value}"
        for kind, state in zip(
            sorted(ENDS),
            (EndState.ANSWERED, EndState.FAILED, EndState.EXPIRED, EndState.WITHDRAWN),
            strict=True,
        )
    )
    decision = f"e.kind = {DECIDED}"
    return (
        f"CASE {by_kind} WHEN {decision} AND e.outcome = {REFUSED} THEN {EndState.REFUSED.value}"
        f" WHEN {decision} AND e.outcome IN ({PERMITTED}, {REFERRED}) THEN {EndState.OPEN.value} END"
    )


_END_STATE: Final = _end_state()
