"""A directive whose cases would not notice a change of its rules does not pass; a tried one does."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from directive import cases, gates
from directive.cases import CaseFile
from directive.findings import Place
from directive.review import review
from directive.skeleton import files
from support.directives import (
    DIRECTIVES,
    FORBID,
    HEAD,
    LAPD,
    PERMIT,
    SHIPPED,
    directive,
    registry,
    shipped_book,
    vocabulary,
)

PLAIN = {"expect": "permit", "rules": ["LAPD-9"]}
NUMBER, ACTIVE = '@requirement_1("a number") ', '@requirement_2("an active officer") '
TWO = NUMBER + ACTIVE + PERMIT + 'when { context.caseNumber != "" }\nwhen { principal.active };'
NO_NUMBER = {
    "name": "no number",
    "given": {"caseNumber": ""},
    "expect": "forbid",
    "unmet": ["LAPD-9#1"],
}
RETIRED = {
    "name": "retired",
    "given": {"officer": "lapd-31007"},
    "expect": "forbid",
    "unmet": ["LAPD-9#2"],
}
OTHERWISE = HEAD.replace("LAPD-9", "LAPD-0") + "permit (principal, action, resource);\n"


def file(*given: Mapping[str, object]) -> CaseFile:
    """The cases, each a change of an ordinary request."""
    whole = cases.load(DIRECTIVES / "lapd-2020-11-13")
    listed = [
        cases.Case.model_validate({"name": f"case {n}", **one}) for n, one in enumerate(given)
    ]
    return whole.model_copy(update={"cases": tuple(listed)})


def judged(rules: str, *given: Mapping[str, object]) -> gates.GatesReport:
    one, asked = directive(rules), file(*given)
    report = cases.run(one, asked, vocabulary(), registry())
    assert not report.findings
    return gates.run(one, asked, report, vocabulary(), registry())


def found(rules: str, *given: Mapping[str, object]) -> list[tuple[str, str]]:
    return [(finding.guard, finding.rule) for finding in judged(rules, *given).findings]


@pytest.mark.parametrize(
    ("condition", "joined"),
    [
        ('when { principal.active && context.caseNumber != "" }', True),
        ('unless { !principal.active || context.caseNumber == "" }', True),
        ('when { principal.active || context.caseNumber != "" }', False),
        ('unless { !principal.active && context.caseNumber == "" }', False),
        ("when { context has beneficiary && context.beneficiary == principal.agency }", False),
        (
            'when { principal.hasTag("LACRIS-FR") && principal.getTag("LACRIS-FR") > context.now }',
            False,
        ),
    ],
)
def test_a_condition_of_a_permit_asks_for_one_thing(condition: str, *, joined: bool) -> None:
    found = list(gates.joined(directive(NUMBER + PERMIT + condition + ";")))
    assert [(one.guard, one.rule, one.place) for one in found] == [
        ("REQUIREMENTS_JOINED", "LAPD-9", Place(3, 1))
    ] * joined


def test_a_prohibition_may_name_several_things_in_one_condition() -> None:
    rules = FORBID + 'when { principal.active && context.caseNumber != "" };'
    assert list(gates.joined(directive(rules))) == []


def test_a_joined_requirement_is_found_before_a_directive_is_handed_in(tmp_path: Path) -> None:
    """The three gates alone would pass it: they try conditions whole."""
    folder = tmp_path / "a-directive"
    folder.mkdir()
    for file, content in files(
        "a-directive", LAPD, "US-CA", "LAPD-", "2", date(2026, 6, 1)
    ).items():
        (folder / file).write_text(content)
    text = folder / "rules.cedar"
    apart = 'when { principal.active }\nwhen { context.caseNumber != "" }'
    together = 'when { principal.active && context.caseNumber != "" }'
    words = text.read_text().replace('@requirement_3("a case number")\n', "")
    assert apart in words
    text.write_text(words.replace(apart, together))
    asked = folder / "cases.yaml"
    asked.write_text(asked.read_text().replace("LAPD-1#3", "LAPD-1#2"))
    said = review(folder, vocabulary(), registry())
    assert [finding.guard for finding in said.findings] == ["REQUIREMENTS_JOINED"]


@pytest.mark.parametrize(
    ("parameters", "meant"),
    [
        ("board:24h", False),
        ("board,mayor:30d", False),
        ("board", False),
        ("defendant: C.R.S. 24-18-308(1)", False),
        ("board:24 hours", True),
        ("board:0h", True),
        ("board:30d,mayor", True),
    ],
)
def test_a_term_that_would_never_pass_is_found(parameters: str, *, meant: bool) -> None:
    rules = f'@obligation_notify("{parameters}")\n' + FORBID + "when { principal.active };"
    found = list(gates.mistimed(directive(rules)))
    assert [(one.guard, one.rule, one.place) for one in found] == [
        ("OBLIGATION_TERM", "LAPD-9", Place(1, 2))
    ] * meant


def test_a_term_that_would_never_pass_is_found_before_a_directive_is_handed_in(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a-directive"
    folder.mkdir()
    for file, content in files(
        "a-directive", LAPD, "US-CA", "LAPD-", "2", date(2026, 6, 1)
    ).items():
        (folder / file).write_text(content.replace('"lead-only"', '"lead-only:24 hours"'))
    said = review(folder, vocabulary(), registry())
    assert {finding.guard for finding in said.findings} == {"OBLIGATION_TERM"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_directive_passes_every_gate(name: str) -> None:
    said = review(DIRECTIVES / name, vocabulary(), registry())
    assert said.findings == ()
    assert said.cases
    assert said.mutants
    assert not said.survivors


def test_a_rule_that_no_case_shows_is_found() -> None:
    report = judged(OTHERWISE + FORBID + "when { principal.active };", {
        "given": {"officer": "lapd-31007"}, "expect": "permit", "rules": ["LAPD-0"],
    })  # fmt: skip
    (finding,) = report.findings
    assert (finding.guard, finding.rule) == ("RULE_NOT_SHOWN", "LAPD-9")
    assert finding.place == Place(3, 1)
    assert "`rules: [LAPD-9]`" in finding.message


def test_a_requirement_that_is_never_the_only_one_missing_is_found() -> None:
    both = {
        "given": {"officer": "lapd-31007", "caseNumber": ""},
        "expect": "forbid",
        "unmet": ["LAPD-9#1", "LAPD-9#2"],
    }
    report = judged(TWO, PLAIN, both, NO_NUMBER)
    (finding,) = report.findings
    assert (finding.guard, finding.place) == ("REQUIREMENT_NOT_SHOWN", Place(4, 1))
    assert 'unmet: ["LAPD-9#2"]' in finding.message
    assert "an active officer" in finding.message


def test_missing_beside_another_is_not_missing_alone() -> None:
    both = {
        "given": {"officer": "lapd-31007", "caseNumber": ""},
        "expect": "forbid",
        "unmet": ["LAPD-9#1", "LAPD-9#2"],
    }
    (finding,) = judged(TWO, PLAIN, both, RETIRED).findings
    assert 'unmet: ["LAPD-9#1"]' in finding.message


def test_a_change_that_a_prohibition_hides_is_not_noticed() -> None:
    rules = TWO + FORBID.replace("LAPD-9", "LAPD-8") + "unless { principal.active };"
    hidden = {"given": {"officer": "lapd-31007"}, "expect": "forbid", "rules": ["LAPD-8"]}
    report = judged(rules, PLAIN, NO_NUMBER, hidden)
    assert [(m.rule.id, m.change) for m in report.survivors] == [
        ("LAPD-9", "condition 2 were left out")
    ]


def test_requirements_that_are_each_shown_pass() -> None:
    report = judged(TWO, PLAIN, NO_NUMBER, RETIRED)
    assert report.findings == ()
    assert report.mutants == 3


@pytest.mark.parametrize(
    ("rules", "given", "change"),
    [
        (
            OTHERWISE + FORBID + "when { principal.active };",
            [{"expect": "forbid", "rules": ["LAPD-9"]}],
            "condition 1 were left out",
        ),
        (
            OTHERWISE + FORBID + 'when { principal.active }\nunless { context.caseNumber != "" };',
            [
                {"given": {"caseNumber": ""}, "expect": "forbid", "rules": ["LAPD-9"]},
                {
                    "given": {"caseNumber": "", "officer": "lapd-31007"},
                    "expect": "permit",
                    "rules": ["LAPD-0"],
                },
            ],
            "condition 2 were left out",
        ),
        (
            OTHERWISE
            + FORBID.replace("resource)", 'resource in Countersign::System::"lacris")')
            + ";",
            [{"expect": "forbid", "rules": ["LAPD-9"]}],
            "its head named nobody and no gallery",
        ),
    ],
)
def test_a_change_that_no_case_notices_is_found(
    rules: str, given: list[Mapping[str, object]], change: str
) -> None:
    report = judged(rules, *given)
    surviving = [finding for finding in report.findings if finding.guard == "MUTANT_SURVIVES"]
    assert any(change in finding.message for finding in surviving)
    assert all(finding.place is not None for finding in surviving)


def test_a_condition_turned_round_is_noticed_by_the_case_that_shows_it() -> None:
    rules = OTHERWISE + FORBID + "when { principal.active };"
    shown = {"expect": "forbid", "rules": ["LAPD-9"]}
    other = {"given": {"officer": "lapd-31007"}, "expect": "permit", "rules": ["LAPD-0"]}
    assert found(rules, shown, other) == []
    survivors = {mutant.change for mutant in judged(rules, shown).survivors}
    assert "condition 1 were turned round" not in survivors


def test_a_permit_that_a_prohibition_hides_is_not_shown() -> None:
    rules = OTHERWISE + FORBID + ";"
    assert ("RULE_NOT_SHOWN", "LAPD-0") in found(rules, {"expect": "forbid", "rules": ["LAPD-9"]})


def test_a_case_that_cannot_be_told_shows_nothing() -> None:
    doubt = {"given": {"purpose": None}, "expect": "cannot tell", "faults": ["FACT_UNKNOWN"]}
    assert ("REQUIREMENT_NOT_SHOWN", "LAPD-9") in found(TWO, PLAIN, NO_NUMBER, doubt)


def test_a_change_that_makes_a_rule_err_is_noticed() -> None:
    """Left out, the first condition would let the second read a fact that is not there."""
    rules = (
        '@requirement_1("said for whom") @requirement_2("for LAPD") '
        + PERMIT
        + "when { context has beneficiary }\n"
        + 'when { context.beneficiary == Countersign::Agency::"CA0194200" };'
    )
    burbank = {"given": {"beneficiary": "CA0191200"}, "expect": "forbid", "unmet": ["LAPD-9#2"]}
    nobody = {
        "given": {"beneficiary": None},
        "seat": "origin",
        "expect": "forbid",
        "unmet": ["LAPD-9#1", "LAPD-9#2"],
    }
    report = judged(rules, PLAIN, burbank, nobody)
    assert [mutant.change for mutant in report.survivors] == []


@pytest.mark.parametrize("name", ["lapd-2020-11-13", "lasd-lacris-operator"])
def test_the_whole_directive_changed_so_fails_a_case_too(name: str) -> None:
    """The gates try a changed rule alone; put in its place, it changes what the directive says."""
    one, asked = shipped_book().directives[name], cases.load(DIRECTIVES / name)
    changes = [mutant for rule in one.rules for mutant in gates.mutants_of(rule)]
    assert len(changes) > 10
    for mutant in changes:
        rest = [rule for rule in one.rules if rule.id != mutant.rule.id]
        if mutant.template is not None:
            rest.append(replace(mutant.rule, template=mutant.template))
        changed = replace(one, rules=tuple(rest))
        assert cases.run(changed, asked, vocabulary(), registry()).findings, mutant.change
