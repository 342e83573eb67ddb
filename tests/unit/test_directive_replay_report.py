"""The report of a replay says what was counted, in three forms, and how far it can be relied on."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from directive.proposed import AsOf, Reading
from directive.rendering.replayed import Span, chart, document, html, markdown
from directive.replay_counts import Change, Example, Outcome, Replayed
from support.directives import LAPD, NOON, PERMIT, directive

ALWAYS = Reading()
REFUSED = Change(Outcome.TO_REFUSED, ("LAPD-1",), ("LAPD-8",))
PERMITTED = Change(Outcome.TO_PERMITTED, ("LAPD-7", "LAPD-9#1"), ("LAPD-9",))
UNSAID = Change(Outcome.CANNOT_SAY, reason="its openings were destroyed")


def found(**changes: object) -> Replayed:
    made = Replayed(LAPD, ("in-force",), (), searches=10, confirmed=3, sampled=2)
    made.counts.update(
        {
            (LAPD, "2026-05", Change(Outcome.SAME)): 5,
            (LAPD, "2026-05", REFUSED): 2,
            (LAPD, "2026-06", PERMITTED): 1,
            (LAPD, "2026-06", UNSAID): 2,
        }
    )
    made.examples.append(Example(7, "2026-05", LAPD, REFUSED))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def report(title: str = "a title", reading: Reading = ALWAYS, **changes: object) -> dict[str, Any]:
    proposal = directive(PERMIT + ";", title=f'"{title}"').document.manifest
    return document(found(**changes), proposal, b"\x01" * 32, Span("2026-05-01", ""), reading)


@pytest.mark.parametrize(
    ("reading", "counted"),
    [
        (ALWAYS, "as if it had been in force throughout"),
        (Reading(AsOf.LEGAL), "whenever it was received"),
        (Reading(AsOf.RECEIVED, NOON), "before it was received, 2026-06-01 12:00 UTC"),
    ],
)
def test_each_form_says_from_when_on_it_counted(reading: Reading, counted: str) -> None:
    read = report(reading=reading)
    assert read["proposal"]["as_of"] == reading.as_of
    for form in (json.dumps(read), markdown(read, "chart.svg"), html(read)):
        assert counted in form


def test_programs_read_what_was_counted() -> None:
    read = json.loads(json.dumps(report()))
    assert read["outcomes"] == {
        "SAME": 5,
        "OTHER_REASONS": 0,
        "TO_REFUSED": 2,
        "TO_PERMITTED": 1,
        "CANNOT_SAY": 2,
    }
    assert read["by_rule"].keys() == {"LAPD-7", "LAPD-8", "LAPD-9#1"}
    assert read["by_rule"]["LAPD-8"]["TO_REFUSED"] == 2
    assert read["by_month"]["2026-06"]["CANNOT_SAY"] == 2
    assert read["cannot_say"] == {"its openings were destroyed": 2}
    assert read["engine"]["changes_confirmed"] == 3
    assert (read["since"], read["until"], read["sound"]) == ("2026-05-01", "", True)
    assert read["examples"] == [
        {
            "index": 7,
            "month": "2026-05",
            "agency": LAPD,
            "outcome": "TO_REFUSED",
            "before": ["LAPD-1"],
            "after": ["LAPD-8"],
        }
    ]


def test_people_read_the_same_in_markdown_and_html() -> None:
    text, page = markdown(report(), "report.svg"), html(report())
    assert "| permitted, would be refused | 2 |" in text
    assert "![What would have changed, by month](report.svg)" in text
    assert "| LAPD-9\\#1 | 0 | 1 | 0 | 0 |" in text
    assert "| 7 | 2026-05 | CA0194200 | permitted, would be refused | LAPD-1 | LAPD-8 |" in text
    assert '<td>permitted, would be refused</td><td class="n">2</td>' in page
    assert page.count("<svg") == 1
    for shown in (text, page):
        assert "in place of in-force" in shown
        assert "its openings were destroyed" in shown
        assert "made again for which all is at hand: 0 came out otherwise" in shown
        assert "Of the others nobody can say" in shown
        assert "cannot be relied on" not in shown
        assert "script" not in shown


def test_counts_that_cannot_be_relied_on_say_so_first() -> None:
    unsound = report(contradictions=1, contradictions_listed=[4])
    for shown in (markdown(unsound, "x.svg"), html(unsound)):
        assert "These counts cannot be relied on" in shown
        assert shown.index("cannot be relied on") < shown.index("what becomes of it")


def test_what_a_directive_says_is_no_markup() -> None:
    hostile = report(title="<b>|x|</b> [a](b)")
    assert "<b>" not in html(hostile)
    assert r"\<b\>\|x\|\</b\> \[a\]\(b\)" in markdown(hostile, "x.svg")


def test_the_chart_has_a_bar_for_each_outcome_of_each_month() -> None:
    drawn = ET.fromstring(chart(report()))
    space = "{http://www.w3.org/2000/svg}"
    bars = [one for one in drawn.iter(f"{space}rect") if one.find(f"{space}title") is not None]
    assert [one.findtext(f"{space}title") for one in bars] == [
        "2026-05: 2 permitted, would be refused",
        "2026-06: 1 refused, would be permitted",
        "2026-06: 2 cannot say",
    ]
    widths = [float(one.attrib["width"]) for one in bars]
    assert widths[0] == widths[2]
    assert abs(widths[0] - 2 * widths[1]) < 0.1
    right = [float(one.attrib["x"]) + float(one.attrib["width"]) for one in bars]
    assert max(right) <= 640


def test_a_history_without_searches_has_a_report() -> None:
    empty = Replayed(LAPD, (), ())
    proposal = directive(PERMIT + ";").document
    made = document(empty, proposal.manifest, proposal.sha256, Span("", ""), ALWAYS)
    assert "0 searches" in markdown(made, "x.svg")
    assert "<svg" in html(made)


def test_who_does_not_see_the_chart_is_told_where_its_figures_are() -> None:
    read = report()
    drawn = ET.fromstring(chart(read))
    said = {one.get("id"): one.text or "" for one in drawn if one.get("id")}
    named = (drawn.get("aria-labelledby") or "").split()
    assert [*said] == named
    assert 'table "By month"' in said[named[1]]
    assert "By month" in markdown(read, "chart.svg")
    assert "By month" in html(read)
    assert chart(read) == chart(report())
