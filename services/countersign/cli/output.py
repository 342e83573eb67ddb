"""What the command says, and how it ends.

Results go to standard output, as tables for people or, with --json, as one JSON document for programs.
Everything else (errors, progress) goes to standard error. Exit codes are the same for all commands.
"""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from countersign.cli.escaping import escape, escape_json
from countersign.cli.rows import Rows
from shared.errors import Overloaded, ServiceError, TooLate, Unavailable
from tlog.verify import Progress

OK: Final = 0
REFUSED: Final = 1
"""The answer is no: a search was refused or gave no list, or something did not verify."""
USAGE: Final = 2
"""The command was not understood, or its configuration cannot be used."""
UNREACHABLE: Final = 3
"""A server could not be reached, or turned the call away."""
CONTRADICTED: Final = 7
"""A decision on record does not follow from what it was made by: the record, or the engine, is at fault."""

PLAIN_WIDTH: Final = 120
"""Columns when the output is not a terminal: wide enough for every table of ours."""

WHAT_NEXT: Final = {
    "UNREACHABLE": "See that the installation runs (one for trials: countersign up), and that the address "
    "in the configuration file is right.",
    "DEADLINE_EXCEEDED": "Try again; a search keeps its id, so nothing is done twice.",
    "CALLER_NOT_ALLOWED": "The certificate in the configuration file does not allow this call.",
    "OFFICER_TOKEN_EXPIRED": "Have a new token issued and call again with the same search id.",
    "OFFICER_TOKEN_UNBOUND": "A token is good for one search: have one issued for this search id.",
    "STILL_PENDING": "Follow it with: countersign search watch ID",
}
"""What a person can do about a failure, by its reason."""


def out() -> Console:
    """The console of results."""
    return _console(sys.stdout)


def err() -> Console:
    """The console of everything else."""
    return _console(sys.stderr)


def _console(file: Any) -> Console:
    width = None if file.isatty() else PLAIN_WIDTH
    return Console(file=file, width=width, highlight=False, emoji=False, soft_wrap=False)


def json_option(command: Any) -> Any:
    """Adds --json to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints a result for programs."""
    click.echo(escape_json(json.dumps(document, indent=2, ensure_ascii=False)))


def table(
    *columns: str,
    title: str | None = None,
    text: Collection[str] = (),
    below: Mapping[str, str] | None = None,
) -> Rows:
    """A table in the command's own style. Cells are shown as they are: give them to `cells`.

    Only the columns in `text` fold. Where the console is too narrow, each column in `below` moves under
    the one that it is mapped to, in that order.
    """
    return Rows(columns, title, text, below or {})


def cells(*values: object) -> list[str]:
    """Text for the cells of a row, safe from being read as markup or as a command."""
    return [escape(str(value)) for value in values]


_ADDRESS: Final = re.compile(
    r"(?:ipv[46]:|resolution failed for )(?P<address>\[[^\]\s]+\]:\d+|[^\s:]+:\d+)"
)
"""Where gRPC names the address in the text of a connection that failed."""


def _unreachable(message: str) -> str:
    """What gRPC says of a connection, with the address first and without what repeats itself."""
    found = _ADDRESS.search(message)
    if found is None:
        return message
    if "connection refused" in message.lower():
        return f"{found['address']}: connection refused"
    return f"{found['address']}: cannot be reached ({message.rpartition('last error: ')[2]})"


def print_error(error: Exception) -> None:
    """Says what went wrong, why, and what can be done."""
    console = err()
    if not isinstance(error, ServiceError):
        console.print(f"[bold red]Error:[/] {escape(str(error))}")
        return
    message = _unreachable(error.message) if error.reason == "UNREACHABLE" else error.message
    console.print(f"[bold red]Error:[/] {escape(message)} \\[{escape(error.reason)}]")
    for violation in error.violations:
        console.print(f"  {escape(violation.field)}: {escape(violation.description)}")
    for name, value in error.metadata.items():
        console.print(f"  {escape(name)}: {escape(value)}")
    hint = WHAT_NEXT.get(error.reason)
    if hint is None and error.retry_after_s is not None:
        hint = f"Try again in {error.retry_after_s:g} s."
    for line in (hint, *getattr(error, "__notes__", ())):
        if line is not None:
            console.print(escape(line))


@contextlib.contextmanager
def again(search_id: str) -> Iterator[None]:
    """Says the id when it is broken off: whoever gave none would begin another search with the retry."""
    same = f"It is the same search with: --id {search_id}"
    try:
        yield
    except (Unavailable, TooLate, Overloaded) as error:
        error.add_note(same)
        raise
    except KeyboardInterrupt:
        err().print(f"Stopped; the search goes on if it was begun. {same}")
        raise


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Shows that something is being waited for, when a person is looking; gives what changes the text."""
    console = err()
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(escape(text)) as status:
        yield lambda text: status.update(escape(text))


@contextlib.contextmanager
def bar(text: str) -> Iterator[Progress]:
    """Shows how far it has come, when a person is looking."""
    console = err()
    if not console.is_terminal:
        yield lambda done, of: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=console, transient=True) as shown:
        task = shown.add_task(text, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)
