"""Tables that never cut a word: what does not fit beside the rest moves below another column.

An identifier that is broken over two lines can neither be read aloud nor copied. So only columns of
text fold, at the blanks between words. When that is not enough, the columns named in `below` move, one
after the other, under the column that they belong to, until everything fits.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP: Final = 3
"""Characters between two columns: a blank, a line, a blank."""
READABLE: Final = 20
"""A column of text that is narrower is a column of single words: rather let something move."""


@dataclass(frozen=True)
class _Piece:
    """One value in a cell, and whether it may fold."""

    text: Text
    folds: bool

    @property
    def least(self) -> int:
        """The width below which something would be cut."""
        if not self.folds:
            return self.most
        return max((Text(word).cell_len for word in self.text.plain.split()), default=0)

    @property
    def most(self) -> int:
        """The width that it would like."""
        return max((line.cell_len for line in self.text.split("\n")), default=0)


_Cell = tuple[_Piece, ...]


class Rows:
    """A table: each cell is markup, columns named in `text` may fold, those in `below` may move."""

    def __init__(
        self,
        columns: Collection[str],
        title: str | None,
        text: Collection[str],
        below: Mapping[str, str],
    ) -> None:
        self._columns = tuple(columns)
        self._title = title
        self._text = frozenset(text)
        self._below = dict(below)
        self._rows: list[list[_Cell]] = [
            [(_Piece(Text(name, style="bold"), True),) for name in columns]
        ]

    def add_row(self, *markup: str) -> None:
        """Adds a row. A cell that is empty takes no line when it moves."""
        self._rows.append(
            [
                (_Piece(Text.from_markup(cell, emoji=False), name in self._text),) if cell else ()
                for name, cell in zip(self._columns, markup, strict=True)
            ]
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As wide as it needs, and no wider than the console."""
        if self._title is not None:
            yield Text.from_markup(self._title, style="bold")
        names, rows = self._columns, self._rows
        for moved, under in self._below.items():
            if _fits(rows, options.max_width):
                break
            names, rows = _moved(names, rows, moved, under)
        table = Table(show_edge=False, pad_edge=False)
        widths = _widths(rows, options.max_width)
        for head, width in zip(rows[0], widths, strict=True):
            table.add_column(_joined(head), width=width, overflow="fold")
        for row in rows[1:]:
            table.add_row(*(_joined(cell) for cell in row))
        yield table


def _moved(
    names: tuple[str, ...], rows: list[list[_Cell]], moved: str, under: str
) -> tuple[tuple[str, ...], list[list[_Cell]]]:
    source, target = names.index(moved), names.index(under)
    changed = []
    for row in rows:
        cells = list(row)
        cells[target] = (*cells[target], *cells[source])
        del cells[source]
        changed.append(cells)
    return tuple(name for name in names if name != moved), changed


def _columns(rows: list[list[_Cell]]) -> list[tuple[int, int]]:
    """The least and the most that each column needs."""
    sizes = []
    for column in zip(*rows, strict=True):
        pieces = [piece for cell in column for piece in cell]
        least = max((piece.least for piece in pieces), default=1)
        sizes.append((max(least, 1), max((piece.most for piece in pieces), default=1)))
    return sizes


def _fits(rows: list[list[_Cell]], width: int) -> bool:
    sizes = _columns(rows)
    readable = sum(max(least, min(most, READABLE)) for least, most in sizes)
    return readable + GAP * (len(sizes) - 1) <= width


def _widths(rows: list[list[_Cell]], width: int) -> list[int | None]:
    """What each column gets: its least, and a share of what is left. None leaves it to rich."""
    sizes = _columns(rows)
    spare = width - GAP * (len(sizes) - 1) - sum(least for least, _ in sizes)
    if spare < 0:
        return [None for _ in sizes]
    wanted = sum(most - least for least, most in sizes)
    if wanted <= spare:
        return [most for _, most in sizes]
    return [least + (most - least) * spare // wanted for least, most in sizes]


def _joined(cell: _Cell) -> Text:
    return Text("\n").join(piece.text for piece in cell)
