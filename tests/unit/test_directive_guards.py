"""Each guard of a directive, named after the trap that it stands against. Without it, a prohibition
could silently forbid nothing."""

from pathlib import Path

import pytest
from cedarpy import validate_policies

from directive import conditions
from directive.book import BookError, load_book
from directive.findings import DirectiveRefused
from directive.rules import read_rules
from support.directives import (
    DIRECTIVES,
    FORBID,
    HEAD,
    LASD,
    PERMIT,
    TRAINED,
    directive,
    findings,
    manifest,
    registry,
    unguarded,
    vocabulary,
)


def accepted_by_cedar(rules: str) -> bool:
    return bool(validate_policies(rules, vocabulary().schema).validation_passed)


@pytest.mark.parametrize(
    "condition",
    [
        "context has warrant && context.narrativeGiven",
        "context.narrativeGiven || context has warrant",
        "principal has beneficiary",
        "context has beneficiary && context.beneficiary has warrant",
    ],
)
def test_trap_4_4_has_on_a_name_that_does_not_exist(condition: str) -> None:
    rules = FORBID + f"when {{ {condition} }};"
    assert accepted_by_cedar(rules), "the trap: Cedar does not mind"
    assert "HAS_UNDECLARED" in findings(rules)


@pytest.mark.parametrize("condition", ["context has caseNumber", "principal has active"])
def test_trap_4_4_has_on_a_name_that_always_exists(condition: str) -> None:
    rules = FORBID + f"unless {{ {condition} }};"
    assert accepted_by_cedar(rules)
    assert "HAS_REQUIRED" in findings(rules)


@pytest.mark.parametrize(
    "condition",
    [
        'resource == Countersign::System::"lacris"',
        "context.seat == context.purpose",
        "principal is Countersign::Gallery",
        'resource in Countersign::NamedList::"lapd-fr-users"',
        'resource in [Countersign::NamedList::"lapd-fr-users"]',
        'context has beneficiary && context.beneficiary == Countersign::System::"lacris"',
        'context.narrativeGiven || resource == Countersign::System::"lacris"',
        '"1" == "2"',
    ],
)
def test_trap_a_condition_that_can_never_be_true(condition: str) -> None:
    rules = FORBID + f"when {{ {condition} }};"
    assert accepted_by_cedar(rules), "the trap: Cedar warns at most, and the warning is lost"
    assert "NEVER_TRUE" in findings(rules)


def test_trap_a_condition_that_is_always_true() -> None:
    assert "ALWAYS_TRUE" in findings(FORBID + 'unless { "1" == "1" };')


def test_trap_4_5_a_closed_list_has_no_such_word() -> None:
    rules = FORBID + 'when { context.purpose == Countersign::Purpose::"crowdAnalysi" };'
    assert "UNKNOWN_TERM" in findings(rules)


@pytest.mark.parametrize(
    "condition",
    [
        'principal in Countersign::NamedList::"lapd-fr-userz"',
        'principal.agency == Countersign::Agency::"CA0194201"',
        'resource in Countersign::System::"lacri"',
        'resource == Countersign::Gallery::"lacris-bookings"',
        'principal.agency in Countersign::Jurisdiction::"US-MA"',
        'principal == Countersign::Officer::"lapd-00000"',
        'principal.hasTag("LACRIS-FRR")',
    ],
)
def test_trap_4_5_a_name_that_is_not_in_the_registry(condition: str) -> None:
    rules = FORBID + f"when {{ {condition} }};"
    assert accepted_by_cedar(rules), "the trap: to Cedar any name is as good as another"
    assert findings(rules) == ["UNKNOWN_NAME"]


def test_a_word_that_no_closed_list_has_is_looked_for_in_the_vocabulary() -> None:
    with pytest.raises(DirectiveRefused) as refused:
        directive(FORBID + 'when { context.purpose == Countersign::Purpose::"crowdAnalysi" };')
    (said,) = [one.message for one in refused.value.findings if one.guard == "UNKNOWN_NAME"]
    assert said.endswith("is not in the vocabulary; did you mean crowdAnalysis?")


def test_attack_officers_are_not_found_by_naming_one_that_is_near() -> None:
    with pytest.raises(DirectiveRefused) as refused:
        directive(FORBID + 'when { principal == Countersign::Officer::"lapd-4012" };')
    (finding,) = refused.value.findings
    assert "lapd-40123" not in finding.message


def test_attack_who_is_an_officer_elsewhere_is_not_found_by_naming_one() -> None:
    def said(officer: str) -> str:
        rules = FORBID + f'when {{ principal == Countersign::Officer::"{officer}" }};'
        with pytest.raises(DirectiveRefused) as refused:
            directive(rules)
        (finding,) = refused.value.findings
        return str(finding).replace(officer, "…")

    own = FORBID + f'when {{ principal == Countersign::Officer::"{TRAINED}" }};'
    assert not findings(own)
    assert "burbank-117" in registry().officers
    assert said("burbank-117") == said("nobody-999")


def test_trap_4_5_a_name_in_the_head_that_is_not_in_the_registry() -> None:
    rules = FORBID.replace("resource)", 'resource in Countersign::System::"lacri")') + ";"
    assert accepted_by_cedar(rules)
    assert findings(rules) == ["UNKNOWN_NAME"]


def test_trap_4_5_an_offence_code_that_is_none() -> None:
    rules = FORBID + 'when { ["09A", "12O9"].contains(context.nibrsCode) };'
    assert accepted_by_cedar(rules)
    assert findings(rules) == ["OFFENCE_CODE"]
    assert not findings(rules.replace("12O9", "120"))


@pytest.mark.parametrize(
    "condition",
    [
        "context.candidatesMax * 9223372036854775807 > 1",
        "context.candidatesMax + 1 > 1",
        "context.candidatesMax - 1 > 1",
        "-context.candidatesMax > 1",
        'context.now.offset(duration("1d")) > context.now',
        'context.now.durationSince(context.now) > duration("1d")',
    ],
)
def test_trap_4_7_arithmetic_that_may_overflow(condition: str) -> None:
    rules = FORBID + f"when {{ {condition} }};"
    assert accepted_by_cedar(rules)
    assert "ARITHMETIC" in findings(rules)


@pytest.mark.parametrize("value", ['"tomorrow"', "context.caseNumber"])
def test_trap_4_7_a_date_that_is_none(value: str) -> None:
    rules = FORBID + f"when {{ context.now > datetime({value}) }};"
    assert "UNKNOWN_TERM" in findings(rules)


def test_trap_4_7_a_course_that_is_computed() -> None:
    assert findings(FORBID + "when { principal.hasTag(context.statute) };") == [
        "COURSE_NOT_LITERAL"
    ]


def test_trap_4_1_an_optional_fact_that_is_read_without_asking() -> None:
    rules = FORBID + 'unless { context.beneficiary == Countersign::Agency::"CA0194200" };'
    assert "UNKNOWN_TERM" in findings(rules)


def test_trap_4_1_a_certificate_that_is_read_without_asking() -> None:
    rules = FORBID + 'unless { principal.getTag("LACRIS-FR") > context.now };'
    assert "UNKNOWN_TERM" in findings(rules)


def test_trap_4_12_an_identifier_twice() -> None:
    assert "ID_DUPLICATE" in findings(FORBID + ";" + FORBID + ";")


def test_trap_4_13_an_annotation_twice() -> None:
    assert findings('@title("b") ' + FORBID + ";") == ["PARSE"]


@pytest.mark.parametrize("missing", ["id", "title", "citation"])
def test_trap_a_rule_without_identifier_title_or_citation(missing: str) -> None:
    head = "".join(f'@{key}("LAPD-9")' for key in ("id", "title", "citation") if key != missing)
    rules = FORBID.replace(HEAD, head) + ";"
    assert f"{missing.upper()}_MISSING" in findings(rules)
    for nothing in ("", "  "):
        empty = FORBID.replace(HEAD, head + f'@{missing}("{nothing}")') + ";"
        assert f"{missing.upper()}_MISSING" in findings(empty)


@pytest.mark.parametrize("identifier", ["LASD-9", "LAPD", "LAPD-", "LAPDX-9", "lapd-9", "9"])
def test_trap_another_partys_prefix(identifier: str) -> None:
    assert findings(FORBID.replace("LAPD-9", identifier) + ";") == ["ID_PREFIX"]


def test_trap_an_annotation_that_means_nothing() -> None:
    assert findings('@efective("2020-01-01") ' + FORBID + ";") == ["ANNOTATION_UNKNOWN"]


def test_trap_a_duty_that_nobody_can_keep() -> None:
    assert findings('@obligation_telepathy("x") ' + FORBID + ";") == ["OBLIGATION_UNKNOWN"]
    assert not findings('@obligation_notify("x") ' + FORBID + ";")


@pytest.mark.parametrize(
    "rules",
    [
        FORBID.replace("(principal,", "(principal == ?principal,") + ";",
        FORBID.replace("resource)", "resource in ?resource)") + ";",
    ],
)
def test_trap_a_template_applies_to_nobody(rules: str) -> None:
    assert accepted_by_cedar(rules)
    assert "TEMPLATE" in findings(rules)


@pytest.mark.parametrize("rules", ["", "// forbid everything", " \n"])
def test_trap_a_directive_that_says_nothing(rules: str) -> None:
    assert accepted_by_cedar(rules)
    assert findings(rules) == ["NO_RULES"]


def test_a_thousand_rules_are_read_and_one_more_is_refused() -> None:
    many = "".join(FORBID.replace("LAPD-9", f"LAPD-{n}") + ";\n" for n in range(1_000))
    assert findings(many) == []
    assert findings(many + FORBID.replace("LAPD-9", "LAPD-1000") + ";") == ["TOO_MANY_RULES"]


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 2_000 + "true" + ")" * 2_000,
        "[" * 2_000,
        "principal" + '["agency"]' * 2_000,
        "context" + ".a" * 2_000,
        " && ".join(["principal.active"] * 2_000),
        "1+(" * 2_000 + "1" + ")" * 2_000,
        "true } when { " * 2_000 + "true",
    ],
    ids=["brackets", "lists", "indices", "members", "conjunction", "sums", "conditions"],
)
def test_rules_that_would_end_the_process_are_refused(condition: str) -> None:
    """Before the engine sees them: it overflows the stack, which no process survives."""
    rules = FORBID.replace(" resource", "\nresource") + f"when {{ {condition} }};"
    with pytest.raises(DirectiveRefused) as refused:
        directive(rules)
    (finding,) = refused.value.findings
    assert finding.guard == "TOO_DEEP"
    assert finding.place is not None
    assert finding.place.line == 4
    with pytest.raises(ValueError, match="nested too deeply"):
        read_rules(rules)


def test_rules_that_are_long_and_not_deep_are_read() -> None:
    codes = ", ".join(['"120"'] * 2_000)
    conjunction = " && ".join(['(context.caseNumber != "" || principal.active)'] * 90)
    assert findings(FORBID + f"when {{ [{codes}].contains(context.nibrsCode) }};") == []
    assert findings(FORBID + f"when {{ {conjunction} }};") == []


@pytest.mark.parametrize("rules", [FORBID, FORBID + "when {", "forbid;", FORBID + "when { a };"])
def test_trap_rules_that_cannot_be_read(rules: str) -> None:
    assert findings(rules) == ["PARSE"]


@pytest.mark.parametrize(
    ("rules", "guard"),
    [
        (PERMIT + "when { principal.active };", "REQUIREMENT_MISSING"),
        ('@requirement_1("") ' + PERMIT + "when { principal.active };", "REQUIREMENT_MISSING"),
        (
            '@requirement_1("a") @requirement_2("b") ' + PERMIT + "when { principal.active };",
            "REQUIREMENT_WITHOUT_CLAUSE",
        ),
        ('@requirement_1(" ") ' + PERMIT + "when { principal.active };", "REQUIREMENT_MISSING"),
        ('@requirement_0("a") ' + PERMIT + ";", "REQUIREMENT_WITHOUT_CLAUSE"),
        (
            PERMIT.replace("resource)", 'resource in Countersign::System::"lacris")') + ";",
            "REQUIREMENT_MISSING",
        ),
        ('@requirement_1("a") ' + FORBID + "when { principal.active };",
         "REQUIREMENT_WITHOUT_CLAUSE"),
        ('@requirement_01("a") ' + FORBID + ";", "ANNOTATION_UNKNOWN"),
    ],
)  # fmt: skip
def test_requirements_in_words_match_the_clauses(rules: str, guard: str) -> None:
    assert findings(rules) == [guard]


def test_a_head_that_can_never_match_is_refused() -> None:
    rules = FORBID.replace("principal,", 'principal in Countersign::System::"lacris",') + ";"
    assert "UNKNOWN_TERM" in findings(rules)


def test_another_version_of_the_vocabulary_is_refused() -> None:
    assert findings(FORBID + ";", vocabulary='"3"') == ["VOCABULARY_VERSION"]


def test_each_finding_names_the_file_and_the_rule() -> None:
    with pytest.raises(DirectiveRefused) as refused:
        directive(FORBID + "when { context has warrant };")
    (finding,) = refused.value.findings
    assert str(finding) == (
        "a-directive/rules.cedar:3:8: LAPD-9: `context has warrant` asks for a fact that the vocabulary "
        "does not have [HAS_UNDECLARED]"
    )


def test_every_finding_is_reported_at_once() -> None:
    rules = (
        FORBID.replace('@citation("a citation")', "") + ";" + FORBID.replace("LAPD", "LASD") + ";"
    )
    assert findings(rules) == ["CITATION_MISSING", "ID_PREFIX"]


def test_attack_of_very_many_findings_the_first_are_told() -> None:
    unknown = ", ".join(f"context.x{number}" for number in range(250))
    assert findings(FORBID + f"when {{ [{unknown}].contains(true) }};") == ["UNKNOWN_TERM"] * 200


def test_sound_rules_have_no_suspect_conditions() -> None:
    rules = [
        rule
        for folder in ("lapd-2020-11-13", "lasd-lacris-operator", "burbank-asks-others")
        for rule in unguarded((DIRECTIVES / folder / "rules.cedar").read_text()).rules
    ]
    assert len(rules) > 5
    assert conditions.suspects(rules, vocabulary()) == []


@pytest.mark.promise(3)
def test_t77_a_directive_with_an_unknown_term_keeps_the_whole_book_shut(tmp_path: Path) -> None:
    for name, rules in (("good", FORBID), ("bad", FORBID.replace("LAPD", "LASD"))):
        (tmp_path / name).mkdir()
        how = {"party": LASD, "prefix": "LASD-"} if name == "bad" else {}
        (tmp_path / name / "directive.toml").write_text(manifest(name=name, **how))
        term = "when { context.moonPhase == 1 };" if name == "bad" else ";"
        (tmp_path / name / "rules.cedar").write_text(rules + term)
    with pytest.raises(BookError, match=r"bad/rules\.cedar:3:16: LASD-9.*moonPhase.*UNKNOWN_TERM"):
        load_book(tmp_path, vocabulary(), registry())
    (tmp_path / "bad" / "rules.cedar").write_text(FORBID.replace("LAPD", "LASD") + ";")
    assert set(load_book(tmp_path, vocabulary(), registry()).directives) == {"good", "bad"}
