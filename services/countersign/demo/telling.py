"""Starts the parts, tells the scenes, stops the parts."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from rich.console import Console

from countersign.cli.escaping import escape
from countersign.cli.invocation import invocation
from countersign.cli.output import OK, REFUSED, cells, progress, table
from countersign.client import ProbeRefused, VerificationError
from countersign.demo.scenes import SCENES
from countersign.demo.stage import SceneFailed, Stage
from countersign.installation.layout import Layout
from countersign.installation.parts import stages
from countersign.installation.ports import Ports
from countersign.installation.prepare import (
    Installation,
    ensure_documents,
    prepare,
    systems_run_here,
)
from countersign.installation.supervisor import PartFailed, running
from shared.errors import ServiceError
from tlog.errors import TlogError

LONGEST_S: Final = 300.0
"""It takes about twenty seconds; past this something hangs."""

_FAILURES: Final = (
    SceneFailed,
    ServiceError,
    VerificationError,
    TlogError,
    ProbeRefused,
    PartFailed,
    TimeoutError,
)


Telling: TypeAlias = Callable[[Console, Path], Awaitable[None]]
"""Tells everything, with a folder of its own; raises what went wrong."""


async def tell(console: Console, telling: Telling | None = None) -> int:
    """The whole demonstration; gives the exit code. No process is left behind, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="countersign-demo-"))
    started = time.monotonic()
    try:
        async with asyncio.timeout(LONGEST_S):
            await (telling or _tell_all)(console, folder)
    except _FAILURES as failure:
        console.print(f"\n[bold red]The demonstration failed:[/] {escape(_text(failure))}")
        console.print(
            f"What the parts wrote is in {escape(str(folder / 'data' / 'log'))}", soft_wrap=True
        )
        return REFUSED
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)
    console.print(
        f"[bold green]Everything happened as promised[/], in {time.monotonic() - started:.0f} s. "
        "No process is left, and the data directory is deleted.\n"
        f"To go on by yourself: {escape(invocation())} up",
        soft_wrap=True,
    )
    return OK


async def _tell_all(console: Console, folder: Path) -> None:
    console.print(
        "[bold]Countersign[/] carries face searches between police departments. Every department "
        "involved is asked whether its own directive allows the search, and one refusal is enough. "
        "Every step is written, before it takes effect, to a ledger that outsiders can verify and a "
        "witness watches.\n\n"
        "The faces are drawings, the officers are invented. Everything else is real: separate "
        "processes, certificates, signatures, the directives, the ledger, the comparison of faces.\n"
    )
    installation = _prepared(folder / "data")
    async with contextlib.AsyncExitStack() as parts:
        with progress("starting every part"):
            await parts.enter_async_context(running(installation, lambda part, what: None))
        console.print(f"Running: {_names(installation)}; each on a port of its own.\n")
        _introduce(console, installation)
        stage = Stage(installation, console, folder)
        for number, (title, scene) in enumerate(SCENES, start=1):
            console.rule(f"[bold]{number}. {title}", align="left", characters="-")
            console.print()
            await scene(stage)
            console.print()
        with progress("stopping every part"):
            await parts.aclose()


def _introduce(console: Console, installation: Installation) -> None:
    console.print("Who takes part, by the identifier that stands in every record:")
    parties = table("identifier", "who")
    for ori, agency in installation.registry.agencies.items():
        parties.add_row(*cells(ori, agency.name))
    parties.add_row(*cells("US-CA", "the State of California, whose statutes bind them"))
    console.print(parties)
    console.print()


def _names(installation: Installation) -> str:
    return ", ".join(part.name for stage in stages(installation) for part in stage)


def _prepared(root: Path) -> Installation:
    layout = Layout(root)
    registry = ensure_documents(layout)
    return prepare(layout, registry, Ports.free(systems_run_here(registry), witness=True))


def _text(failure: BaseException) -> str:
    if isinstance(failure, TimeoutError):
        return f"it took longer than {LONGEST_S:.0f} s"
    return str(failure)
