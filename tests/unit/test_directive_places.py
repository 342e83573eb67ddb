"""Findings point at the line and column where the author must look."""

import pytest

from directive import places
from directive.findings import DirectiveRefused, Finding, Place
from support.directives import FORBID, HEAD, PERMIT, directive

FIRST = """// a comment; with a semicolon
@id("LAPD-1") @title("a; b {") @citation("c")
forbid (principal, action, resource);

"""

BARE = "forbid (principal, action, resource)"


def found(rules: str) -> list[Finding]:
    with pytest.raises(DirectiveRefused) as refused:
        directive(rules)
    return list(refused.value.findings)


def marked(text: str) -> tuple[str, Place]:
    """A text without its mark, and where the mark stood."""
    before, _, after = text.partition("»")
    line = before.count("\n") + 1
    return before + after, Place(line, len(before) - (before.rfind("\n") + 1) + 1)


@pytest.mark.parametrize(
    ("guard", "rules"),
    [
        ("PARSE", FIRST + HEAD + "forbid (principal, action, resource)\nwhen { context.a == »};"),
        ("PARSE", FIRST + HEAD + "forbid (principal, action, resource)\nwhen { »contex.a };"),
        ("PARSE", FIRST + HEAD + "forbid (principal, action, resource)\n»wen { true };"),
        ("PARSE", FIRST + HEAD + "»forbit (principal, action, resource);"),
        ("PARSE", FIRST + HEAD + "forbid (principal, action, resource)\nwhen { context.seat »# 1 };"),
        ("PARSE", FIRST + HEAD + "forbid (principal, action, resource)\nwhen { true »}"),
        ("PARSE", FIRST + "@»id(\"a\") " + HEAD + "forbid (principal, action, resource);"),
        ("UNKNOWN_TERM", FIRST + FORBID + "when { context.»moonPhase == 1 };"),
        ("UNKNOWN_TERM", FIRST + FORBID + 'when { context.purpose == »Countersign::Purpose::"crowd" };'),
        ("HAS_UNDECLARED", FIRST + FORBID + "when { context.attempt &&\n  »context has warrant };"),
        ("NEVER_TRUE", FIRST + FORBID + 'when { »resource == Countersign::System::"lacris" };'),
        ("UNKNOWN_NAME", FIRST + FORBID + 'when { resource in »Countersign::System::"lacri" };'),
        ("UNKNOWN_NAME", FIRST + FORBID + 'when { principal.hasTag(»"LACRIS-FRR") };'),
        ("OFFENCE_CODE", FIRST + FORBID + 'when { ["09A",\n »"12O9"].contains(context.nibrsCode) };'),
        ("ARITHMETIC", FIRST + FORBID + "when { context.candidatesMax »+ 1 > 1 };"),
        ("ARITHMETIC", FIRST + FORBID + 'when { context.now.»offset(duration("1d")) > context.now };'),
        ("CITATION_MISSING", FIRST + '»@id("LAPD-9")\n@title("t")\n' + BARE + ";"),
        ("CITATION_MISSING", FIRST + '@id("LAPD-9")\n@title("t") @»citation("")\n' + BARE + ";"),
        ("ID_PREFIX", FIRST + '@title("t") @»id("LASD-9") @citation("t")\n' + BARE + ";"),
        ("ID_DUPLICATE", FIRST + '@title("t") @»id("LAPD-1") @citation("t")\n' + BARE + ";"),
        ("OBLIGATION_UNKNOWN", FIRST + '@»obligation_telepathy("x") ' + FORBID + ";"),
        ("ANNOTATION_UNKNOWN", FIRST + '@»citatoin("x") ' + FORBID + ";"),
        ("REQUIREMENT_MISSING", FIRST + PERMIT + "»when { principal.active };"),
        ("REQUIREMENT_WITHOUT_CLAUSE", FIRST + '@»requirement_7("x") ' + FORBID + ";"),
        ("TEMPLATE", FIRST + HEAD + "forbid (principal == »?principal, action, resource);"),
    ],
)  # fmt: skip
def test_a_finding_points_at_the_word(guard: str, rules: str) -> None:
    text, place = marked(rules)
    assert [(f.guard, f.place) for f in found(text) if f.guard == guard] == [(guard, place)]


def test_a_slip_of_the_pen_is_answered_with_what_was_meant() -> None:
    (name,) = found(FORBID + 'when { resource in Countersign::System::"lacri" };')
    assert name.message.endswith("; did you mean lacris?")
    (annotation,) = found('@citatoin("x") ' + FORBID + ";")
    assert annotation.message.endswith("; did you mean citation?")


def test_comments_and_texts_end_no_rule() -> None:
    rules = places.rules(FIRST + FORBID + 'when { context.statute != "a;\\"b;" } // c;\n;')
    assert [len(rule.clauses) for rule in rules] == [0, 1]
    assert sorted(rules[0].annotations) == ["citation", "id", "title"]


@pytest.mark.parametrize(
    "text", ["", ";", "@", "@id", "permit", "permit (", "when", '"', "}{", "@id(("]
)
def test_any_text_is_taken_apart_without_complaint(text: str) -> None:
    places.rules(text)
    places.parse_error(text, "whatever")
