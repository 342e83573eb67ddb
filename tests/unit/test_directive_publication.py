"""What is refused at the moment of publishing: a date that is past, and another directive in the way."""

from datetime import date

import pytest

from directive import document, publication
from directive.book import Directive
from directive.findings import Place
from directive.rules import read_rules
from support.directives import FORBID, LASD, PERMIT, directive, manifest, vocabulary

TODAY = date(2026, 6, 1)


def dated(**dates: str) -> document.Document:
    return document.parse("a-directive", manifest(**dates).encode(), (FORBID + ";").encode())


def named(name: str, rules: str, **how: str) -> Directive:
    """As loaded from a folder of that name."""
    text = manifest(name=name, **how)
    read = document.parse(name, text.encode(), rules.encode())
    return Directive(read, tuple(read_rules(rules)))


def test_a_directive_that_takes_effect_today_or_later_may_be_published() -> None:
    for day in ("2026-06-01", "2027-01-01"):
        assert publication.check_dates(dated(effective_from=day), TODAY) == []


def test_an_effect_that_began_in_the_past_is_refused_unless_it_is_meant() -> None:
    late = dated(effective_from="2026-05-31")
    (finding,) = publication.check_dates(late, TODAY)
    assert (finding.guard, finding.place) == ("EFFECT_PAST", Place(8, 1))
    assert publication.check_dates(late, TODAY, received_late=True) == []


@pytest.mark.parametrize("late", [True, False])
def test_an_effect_that_is_over_is_refused_in_any_case(*, late: bool) -> None:
    over = dated(effective_from="2026-05-01", effective_until="2026-06-01")
    (finding,) = publication.check_dates(over, TODAY, received_late=late)
    assert finding.guard == "EFFECT_OVER"


def test_versions_that_overlap_are_refused() -> None:
    old, new = named("old", PERMIT + ";"), named("new", FORBID + ";", effective_from="2026-06-02")
    (finding,) = publication.check_beside(new, [old], vocabulary())
    assert finding.guard == "VERSIONS_OVERLAP"
    assert "LAPD-9" in str(finding)
    ended = named("old", PERMIT + ";", effective_until="2026-06-02")
    assert publication.check_beside(new, [ended], vocabulary()) == []


def test_a_text_replaces_the_one_of_its_name() -> None:
    old, new = named("same", PERMIT + ";"), named("same", FORBID + ";")
    assert publication.check_beside(new, [old], vocabulary()) == []


def test_another_partys_prefix_is_refused() -> None:
    theirs = directive(FORBID + ";")
    ours = named("ours", FORBID.replace("LAPD-9", "LAPD-8") + ";", party=LASD)
    (finding,) = publication.check_beside(ours, [theirs], vocabulary())
    assert finding.guard == "ID_PREFIX"
