"""What a load came to, as a person reads it, and whether it kept the bounds that were set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from countersign.cli.escaping import escape
from countersign.cli.output import cells, table
from countersign.load.histogram import PERCENTILES, Histogram
from countersign.load.measured import PERMITTED, SET_WHAT, Measured, Step
from countersign.load.mix import Kind
from countersign.load.pace import Bounds

LATE_MS: Final = 100.0
"""From when on the load itself is what is measured: a search takes some tens of milliseconds."""


@dataclass(frozen=True)
class Asked:
    """What the load was to be: either so many a second, or so many at any time."""

    rate: float | None
    in_flight: int | None
    bounds: Bounds
    mix: Mapping[Kind, int]
    case_number: str
    errors_max: float
    """Per cent of all that ended or was left out."""
    p99_max_ms: float | None
    """Of whole searches."""

    @property
    def load(self) -> str:
        """In words."""
        if self.rate is not None:
            return f"{self.rate:g} a second"
        return f"{self.in_flight} in flight"


@dataclass(frozen=True)
class Outcome:
    """What it came to."""

    asked: Asked
    measured: Measured
    elapsed_s: float
    stopped: bool
    """Somebody ended it before its time."""

    @property
    def reached(self) -> float:
        """How much came out right each second."""
        return self.measured.right.total() / self.elapsed_s if self.elapsed_s else 0.0

    def broken(self) -> list[str]:
        """Each bound that was not kept, in words."""
        measured, asked = self.measured, self.asked
        words = []
        permitted = sum(count for (_, why), count in measured.errors.items() if why == PERMITTED)
        if permitted:
            words.append(f"{permitted} searches were permitted that every party must refuse")
        if not measured.right.total():
            words.append("nothing came out right")
        if measured.percent_wrong() > asked.errors_max:
            words.append(
                f"{measured.percent_wrong():.2f} % went wrong, and {asked.errors_max:g} % may"
            )
        if asked.p99_max_ms is not None:
            p99_ms = measured.steps.get(Step.ANSWERED, Histogram()).percentile_s(0.99) * 1000
            # None that came out right would be none that took too long.
            if not p99_ms or p99_ms > asked.p99_max_ms:
                words.append(f"p99 of a search is {p99_ms:.0f} ms, and may be {asked.p99_max_ms:g}")
        return words

    def document(self) -> dict[str, Any]:
        """For programs."""
        asked = self.asked
        return {
            "asked": {
                "rate_per_s": asked.rate,
                "in_flight": asked.in_flight,
                "duration_s": asked.bounds.duration_s,
                "searches": asked.bounds.count_max,
                "mix": {str(kind): weight for kind, weight in asked.mix.items()},
                "case_number": asked.case_number,
                "errors_max_percent": asked.errors_max,
                "p99_max_ms": asked.p99_max_ms,
            },
            "reached_per_s": round(self.reached, 3),
            "elapsed_s": round(self.elapsed_s, 3),
            "stopped": self.stopped,
            "bounds_broken": self.broken(),
            **self.measured.document(),
        }


def line(measured: Measured, elapsed_s: float) -> str:
    """How it stands while it runs."""
    p99_ms = measured.steps.get(Step.ANSWERED, Histogram()).percentile_s(0.99) * 1000
    rate = measured.right.total() / elapsed_s if elapsed_s else 0.0
    return (
        f"{elapsed_s:.0f} s: {measured.ended} ended, {measured.in_flight} in flight, {rate:.1f} a second, "
        f"p99 of a search {p99_ms:.0f} ms, {measured.wrong} wrong (Ctrl-C ends it)"
    )


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Tables, what a limit turned away, and the verdict."""
    measured = outcome.measured
    times = table(
        "step", "count", *PERCENTILES, "max", title="Latency, ms, from when it was to begin"
    )
    for step in Step:
        taken = measured.steps.get(step)
        if taken is not None:
            ends = [*map(taken.percentile_s, PERCENTILES.values()), taken.max_s]
            times.add_row(*cells(step, taken.count, *(f"{one * 1000:.1f}" for one in ends)))
    console.print(times)
    kinds = table("kind", "begun", "right", "wrong", title="What came of it")
    for kind, begun in measured.begun.items():
        wrong = sum(count for (of, _), count in measured.errors.items() if of is kind)
        kinds.add_row(*cells(kind, begun, measured.right[kind], wrong))
    console.print(kinds)
    if measured.errors:
        errors = table("kind", "reason", "count", title="Errors")
        for (kind, reason), count in measured.errors.most_common():
            errors.add_row(*cells(kind, reason, count))
        console.print(errors)
    for reason in measured.limited:
        text = SET_WHAT.get(reason, "less load")
        console.print(f"{escape(reason)} is a limit. To have more: {escape(text)}.", soft_wrap=True)
    _print_verdict(console, outcome)


def _print_verdict(console: Console, outcome: Outcome) -> None:
    measured = outcome.measured
    console.print(
        f"Asked: {outcome.asked.load}. Reached: {outcome.reached:.1f} a second came out right in "
        f"{outcome.elapsed_s:.1f} s; {measured.left_out} not begun, {measured.in_flight} unfinished."
        + (" Stopped before its time." if outcome.stopped else ""),
        soft_wrap=True,
    )
    late_ms = measured.steps.get(Step.BEGUN, Histogram()).percentile_s(0.99) * 1000
    if late_ms > LATE_MS:
        console.print(
            f"[bold yellow]The load itself began up to {late_ms:.0f} ms late[/] (p99): this machine is what "
            "was measured. Ask for less, or have it run elsewhere, or several of it.",
            soft_wrap=True,
        )
    for words in outcome.broken():
        console.print(f"[bold red]Not kept:[/] {escape(words)}", soft_wrap=True)
    if not outcome.broken():
        console.print("[bold green]Every bound is kept.[/]")
