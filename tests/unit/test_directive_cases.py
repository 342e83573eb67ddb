"""Every shipped directive decides its own cases as they state; a case that is wrong is noticed."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from directive import cases
from directive.cases import Case, CaseFile
from directive.findings import DocumentError
from support.directives import DIRECTIVES, registry, shipped_book, vocabulary

NAMES = sorted(shipped_book().directives)
SHIPPED = [
    pytest.param(name, case, id=f"{name}: {case.label}")
    for name in NAMES
    for case in cases.load(DIRECTIVES / name).cases
]


def run(name: str, file: CaseFile) -> cases.CasesReport:
    return cases.run(shipped_book().directives[name], file, vocabulary(), registry())


@pytest.mark.parametrize(("name", "case"), SHIPPED)
def test_a_shipped_case_holds(name: str, case: Case) -> None:
    alone = cases.load(DIRECTIVES / name).model_copy(update={"cases": (case,)})
    (result,) = run(name, alone).results
    assert result.problems == ()


@pytest.mark.parametrize("name", NAMES)
def test_shipped_cases_name_no_officer_of_somebody_elses_registry(name: str) -> None:
    directive = shipped_book().directives[name]
    party = directive.document.manifest.party
    own = {key: one for key, one in registry().officers.items() if one.agency == party}
    as_seen = registry().model_copy(update={"officers": own})
    file = cases.load(DIRECTIVES / name)
    assert cases.run(directive, file, vocabulary(), as_seen).findings == ()


def test_an_officer_whom_nobody_knows_is_to_be_written_down() -> None:
    file = cases.load(DIRECTIVES / "lapd-2020-11-13")
    unknown = file.cases[0].model_copy(update={"given": {"officer": "nobody-999"}})
    report = run("lapd-2020-11-13", file.model_copy(update={"cases": (unknown,)}))
    assert "write the officer under `registry`" in report.findings[0].message


def test_the_catalogue_rows_that_these_directives_cover_are_cases() -> None:
    ids = {case.id for name in NAMES for case in cases.load(DIRECTIVES / name).cases}
    assert {"T01", "T02", "T03", "T05", "T06", "T08", "T76", "T78"} <= ids


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"expect": "forbid"}, "verdict: expected forbid; got permit"),
        ({"rules": ["LAPD-2"]}, "rules: expected LAPD-2; got LAPD-1"),
        ({"unmet": ["LAPD-1#3"]}, "unmet: expected LAPD-1#3; got none"),
        ({"obligations": ["log"]}, "obligations: expected log; got log, notice"),
        ({"faults": ["NO_DIRECTIVE"]}, "faults: expected NO_DIRECTIVE; got none"),
        ({"seat": "operator"}, "does not hold the seat"),
    ],
)
def test_a_case_that_states_otherwise_fails(change: dict[str, object], problem: str) -> None:
    file = cases.load(DIRECTIVES / "lapd-2020-11-13")
    wrong = file.cases[0].model_copy(update=change)
    report = run("lapd-2020-11-13", file.model_copy(update={"cases": (wrong,)}))
    (finding,) = report.findings
    assert problem in finding.message
    assert finding.guard == "CASE_FAILS"


def test_a_case_that_fails_is_pointed_at() -> None:
    file = DIRECTIVES / "lapd-2020-11-13" / "cases.yaml"
    text = file.read_text().replace("expect: cannot tell", "expect: permit", 1)
    (finding,) = run("lapd-2020-11-13", cases.parse("a", text.encode())).findings
    assert finding.place is not None
    (line, shown) = finding.place.line, text.splitlines()[finding.place.line - 1]
    assert shown == f"  - name: {finding.rule}", line
    assert shown[finding.place.column - 1 :] == f"name: {finding.rule}"


def test_a_case_of_a_day_without_the_directive_says_so() -> None:
    file = cases.load(DIRECTIVES / "lapd-2020-11-13")
    early = file.cases[0].model_copy(update={"at": file.at.replace(year=2000)})
    (finding,) = run("lapd-2020-11-13", file.model_copy(update={"cases": (early,)})).findings
    assert finding.message.endswith("the directive is not in force at that time (`at`)")


def test_a_case_may_bring_those_who_take_part_in_it() -> None:
    file = cases.load(DIRECTIVES / "lasd-lacris-operator")
    assert "NV0020100" not in registry().agencies
    assert not run("lasd-lacris-operator", file).findings


@pytest.mark.parametrize(
    "brought",
    [
        {"officers": {"x": {"agency": "ZZ9999999", "active": True}}},
        {"officers": {"x": {}}},
        {"aliens": {"x": {}}},
        {"agencies": {"x": "y"}},
    ],
)
def test_those_who_take_part_in_a_case_must_make_a_sound_registry(brought: object) -> None:
    file = cases.load(DIRECTIVES / "lapd-2020-11-13").model_copy(update={"registry": brought})
    with pytest.raises(DocumentError, match="registry: "):
        run("lapd-2020-11-13", file)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda file: file.update(surprise=1), "surprise"),
        (lambda file: file["cases"][0].update(expect="maybe"), "expect"),
        (lambda file: file["cases"][0].update(given={"purpos": "sketch"}), "purpos"),
        (lambda file: file["cases"][0].update(given={"purpose": "sketch"}), "not a Purpose"),
        (lambda file: file.update(cases=[]), "cases"),
        (
            lambda file: file["cases"].append(deepcopy(file["cases"][0])),
            "another case has this name",
        ),
        (lambda file: file.update(seat="chair"), "seat"),
    ],
)
def test_a_case_file_with_a_mistake_is_refused_and_named(
    tmp_path: Path, change: object, complaint: str
) -> None:
    assert callable(change)
    content = yaml.safe_load((DIRECTIVES / "lapd-2020-11-13" / "cases.yaml").read_text())
    change(content)
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DocumentError, match=complaint):
        run("lapd-2020-11-13", cases.load(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ordinary:", "surprise: 1\nordinary:", "cases.yaml:3:1: surprise: there is no such key"),
        ("seat: operator", "seat: chair", "cases.yaml:2:1: seat: should be 'origin'"),
        ("    expect: forbid", "    expect: maybe", "cases.yaml:18:5: cases.0.expect: should be"),
        ("    expect: forbid\n", "", "cases.yaml:16:5: cases.0.expect: is missing"),
    ],
)
def test_a_mistake_is_pointed_at_in_plain_words(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (DIRECTIVES / "facefind-nobody" / "cases.yaml").read_text()
    assert old in text
    (tmp_path / "cases.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(DocumentError) as refused:
        cases.load(tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "a: [",
        "- 1",
        "\x00",
        "!!python/object:os.system {}",
        "at: 2026-13-01",
        "[" * 10_000,
        "\\",
        "&a [*a]",
        "at: " + "9" * 5_000,
        "cases: !!set {a, b}",
    ],
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "cases.yaml").write_text(content)
    with pytest.raises(DocumentError):
        cases.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "complaint", "line"),
    [
        ("at:", "cases: []\nat:", "the key 'cases' stands twice", 16),
        (
            "    expect: forbid",
            "    expect: permit\n    expect: forbid",
            "'expect' stands twice",
            19,
        ),
        ("at:", "at: &now", "", 0),
        ("ordinary:", "registry: {agencies: &a {}, systems: *a}\nordinary:", "a reference", 3),
        ("ordinary:", "ordinary:\n  <<: {officer: nobody}", "a merge", 4),
        ("ordinary:", "registry: {1: {}, 0x1: {}}\nordinary:", "a key that is not text", 3),
    ],
)
def test_attack_a_case_file_that_reads_otherwise_than_it_counts(
    old: str, new: str, complaint: str, line: int
) -> None:
    text = (DIRECTIVES / "facefind-nobody" / "cases.yaml").read_text().replace(old, new, 1)
    if not complaint:  # A name that nobody refers to says nothing.
        assert cases.parse("a", text.encode()).cases
        return
    with pytest.raises(DocumentError, match=complaint) as refused:
        cases.parse("a", text.encode())
    (finding,) = refused.value.findings
    assert finding.guard == "CASES"
    assert finding.place is not None
    assert finding.place.line == line


def test_attack_a_small_case_file_that_would_fill_the_memory() -> None:
    lines = "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
    with pytest.raises(DocumentError, match="not YAML"):
        cases.parse("a", f"a0: &a0 {{x: 1}}\n{lines}".encode())
