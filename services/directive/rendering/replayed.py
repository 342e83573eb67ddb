"""The report of a replay: as a document for programs, as Markdown, and as one HTML file, with a chart.

Names nobody: a search is named by the index of its entry.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from directive.document import Manifest
from directive.evaluate import ENGINE
from directive.proposed import AsOf, Reading
from directive.replay_counts import Outcome, Replayed

CHANGED: Final = (Outcome.TO_REFUSED, Outcome.TO_PERMITTED, Outcome.OTHER_REASONS)
COLOURS: Final = {
    Outcome.TO_REFUSED: "#b3261e",
    Outcome.TO_PERMITTED: "#1b7f4d",
    Outcome.OTHER_REASONS: "#5f6b7a",
    Outcome.CANNOT_SAY: "#d9a400",
}
"""Told apart in print and by those who do not see red and green: they differ in lightness, too."""

_TEMPLATES: Final = Path(__file__).parent
_CHART_WIDTH: Final = 640
_BAR: Final = 18
_LABEL: Final = 70


@dataclass(frozen=True)
class Span:
    """The time that was replayed, as it was asked for; empty for no bound."""

    since: str
    until: str


@dataclass(frozen=True)
class Bar:
    """A part of a month's bar in the chart."""

    x: float
    width: float
    colour: str
    label: str


def document(
    found: Replayed, proposal: Manifest, sha256: bytes, span: Span, reading: Reading
) -> dict[str, Any]:
    """All of it, for programs. Outcomes go by their names in `Outcome`."""
    return {
        "proposal": {
            "name": proposal.name,
            "party": proposal.party,
            "title": proposal.title,
            "sha256": sha256.hex(),
            "as_of": str(reading.as_of),
            "received": reading.received.isoformat() if reading.received else "",
            "counted": _counted(reading, proposal),
            "replaces": list(found.replaces),
            "beside": list(found.beside),
        },
        "since": span.since,
        "until": span.until,
        "searches": found.searches,
        "outcomes": _named(found.totals()),
        "cannot_say": found.unsaid(),
        "by_agency": {key: _named(counts) for key, counts in found.by("agency").items()},
        "by_rule": {key: _named(counts) for key, counts in found.by("rule").items()},
        "by_month": {key: _named(counts) for key, counts in found.by("month").items()},
        "self_check": {
            "contradictions": found.contradictions,
            "entries": found.contradictions_listed,
            "decided_alike_by_other_engines": dict(found.other_engine),
        },
        "engine": {
            "name": ENGINE,
            "changes_confirmed": found.confirmed,
            "others_sampled": found.sampled,
            "disagreements": found.disagreements,
            "left_to_engine": found.left_to_engine,
        },
        "sound": found.sound,
        "examples": [
            {
                "index": one.index,
                "month": one.month,
                "agency": one.agency,
                "outcome": one.change.outcome.name,
                "before": list(one.change.before),
                "after": list(one.change.after),
            }
            for one in found.examples
        ],
    }


def _counted(reading: Reading, proposal: Manifest) -> str:
    """From when on it counted, as a sentence."""
    if reading.as_of is AsOf.ALWAYS:
        return "Counted as if it had been in force throughout."
    until = f" until {proposal.effective_until}" if proposal.effective_until else ""
    dates = f"by its legal dates, from {proposal.effective_from}{until}"
    if reading.received is None:
        return f"Counted {dates}, whenever it was received."
    received = f"{reading.received:%Y-%m-%d %H:%M} UTC"
    return f"Counted {dates}, and for no search of before it was received, {received}."


def _named(counts: dict[Outcome, int]) -> dict[str, int]:
    return {outcome.name: counts.get(outcome, 0) for outcome in Outcome}


def markdown(report: dict[str, Any], chart_file: str) -> str:
    """The report as Markdown, which shows the chart from a file beside it."""
    return _render("replayed.md.jinja", report, chart_file=chart_file)


def html(report: dict[str, Any]) -> str:
    """The report as one HTML file, without scripts, without anything from elsewhere."""
    return _render("replayed.html.jinja", report, chart=chart(report))


def chart(report: dict[str, Any]) -> str:
    """What would have changed, month by month, as SVG."""
    months = report["by_month"]
    most = max((sum(_shown(counts).values()) for counts in months.values()), default=0)
    rows = [
        (month, sum(_shown(counts).values()), list(_bars(counts, most)))
        for month, counts in months.items()
    ]
    return _render(
        "replayed.svg.jinja", report, rows=rows, width=_CHART_WIDTH, bar=_BAR, label=_LABEL
    )


def _shown(counts: dict[str, int]) -> dict[Outcome, int]:
    return {outcome: counts[outcome.name] for outcome in COLOURS}


def _bars(counts: dict[str, int], most: int) -> list[Bar]:
    bars, at = [], float(_LABEL)
    room = _CHART_WIDTH - 2 * _LABEL
    for outcome, count in _shown(counts).items():
        if count:
            width = room * count / most
            bars.append(Bar(round(at, 2), round(width, 2), COLOURS[outcome], f"{count} {outcome}"))
            at += width
    return bars


def _render(template: str, report: dict[str, Any], **more: Any) -> str:
    # Read here: the command line starts without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=not template.endswith(".md.jinja"),  # noqa: S701  # Markdown has its own filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    if "chart" in more:
        more["chart"] = Markup(more["chart"])  # noqa: S704  # ours, and escaped when it was made
    return environment.get_template(template).render(
        report=report, outcomes=Outcome, changed=CHANGED, colours=COLOURS, **more
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, also in a cell of a table."""
    return "".join(f"\\{one}" if one in r"\`*_{}[]<>()#+!|" else one for one in str(text))
