"""`countersign directive test` without a server, and how a directive is shown."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from countersign.cli.directive_view import print_directive, print_list
from countersign.cli.main import exit_code
from countersign.policy.v1.policy_pb2 import Directive, GetDirectiveResponse
from support.directives import DIRECTIVES, shipped_book


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A copy of LAPD's directive, to be changed."""
    return Path(shutil.copytree(DIRECTIVES / "lapd-2020-11-13", tmp_path / "lapd-2020-11-13"))


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_shipped_directives_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["directive", "test"]) == 0
    assert "6 directive(s): all pass" in capsys.readouterr().out


def test_a_case_that_does_not_hold_is_shown_and_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "rules.cedar", "when { resource.system.commercial }", "when { false }")
    assert exit_code(["directive", "test", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "FAILS T02" in shown
    assert "expected LAPD-2, LAPD-4; got LAPD-4" in shown
    assert "changes of its rules are tried when every case holds" in shown


def test_a_fact_that_no_case_states_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "ours"
    assert exit_code(["directive", "init", str(ours)]) == 0
    change(ours / "rules.cedar", "when { principal.active }", "when { context.emergency }")
    capsys.readouterr()
    assert exit_code(["directive", "test", "--json", str(ours)]) == 1
    (said,) = json.loads(capsys.readouterr().out)["directives"]
    assert said["findings"][0]["message"].endswith("in the case's `given`: emergency")


def test_what_a_guard_finds_is_shown_with_file_and_rule(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "rules.cedar", '"lapd-fr-users"', '"lapd-fr-userz"')
    assert exit_code(["directive", "test", "--json", str(folder)]) == 1
    (said,) = json.loads(capsys.readouterr().out)["directives"]
    assert said["passed"] is False
    (found,) = said["findings"]
    assert found["code"] == "UNKNOWN_NAME"
    assert (found["file"], found["about"]) == ("lapd-2020-11-13/rules.cedar", "LAPD-1")
    assert (found["line"], found["column"]) == (14, 16)
    assert "did you mean lapd-fr-users?" in found["message"]


def test_a_finding_is_one_line_that_an_editor_can_jump_to(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "rules.cedar", '"lapd-fr-users"', '"lapd-fr-userz"')
    assert exit_code(["directive", "lint", str(folder)]) == 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "refused" in one]
    assert "lapd-2020-11-13/rules.cedar:14:16: LAPD-1: " in line
    assert line.endswith("[UNKNOWN_NAME]")


def test_lint_does_not_ask_the_cases(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "cases.yaml", "expect: cannot tell", "expect: permit")
    assert exit_code(["directive", "lint", str(folder)]) == 0
    assert exit_code(["directive", "test", str(folder)]) == 1
    assert "got cannot tell" in capsys.readouterr().out


def test_a_change_that_no_case_notices_fails(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "cases.yaml").read_text()
    start = text.index("  - name: no case number")
    without = text[:start] + text[text.index("  - name: another agency's officer, for", start) :]
    (folder / "cases.yaml").write_text(without)
    assert exit_code(["directive", "test", "--json", str(folder)]) == 1
    (said,) = json.loads(capsys.readouterr().out)["directives"]
    assert [found["code"] for found in said["findings"]] == ["REQUIREMENT_NOT_SHOWN"]
    assert said["changes"] == {"tried": 18, "unnoticed": 1}


def test_a_folder_without_cases_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cases.yaml").unlink()
    assert exit_code(["directive", "test", str(folder)]) == 1
    assert "lapd-2020-11-13/cases.yaml" in capsys.readouterr().out


def test_json_lists_every_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["directive", "test", "--json", str(folder)]) == 0
    (said,) = json.loads(capsys.readouterr().out)["directives"]
    assert said["passed"] is True
    assert {"T01", "T02", "T03", "T05", "T76"} <= {case["id"] for case in said["cases"]}


@pytest.mark.parametrize(
    "arguments",
    [["--registry", "nowhere.toml"], ["--vocabulary", "nowhere"], ["nowhere"]],
)
def test_a_path_that_is_not_there_is_a_usage_error(arguments: list[str]) -> None:
    assert exit_code(["directive", "test", *arguments]) == 2


def test_a_vocabulary_that_cannot_be_used_is_a_usage_error(tmp_path: Path) -> None:
    assert exit_code(["directive", "test", "--vocabulary", str(tmp_path)]) == 2


def shown(response: GetDirectiveResponse) -> str:
    screen = io.StringIO()
    print_directive(Console(file=screen, width=200, no_color=True), response)
    return screen.getvalue()


def response() -> GetDirectiveResponse:
    loaded = shipped_book().directives["lapd-2020-11-13"].document
    return GetDirectiveResponse(
        directive=Directive(name=loaded.name, party="CA0194200", sha256=loaded.sha256),
        manifest=loaded.manifest_text,
        rules=loaded.rules_text,
    )


def test_a_directive_is_shown_with_each_rule_beside_its_citation() -> None:
    text = shown(response())
    assert "LAPD-3 forbids: No search on behalf of an outside agency" in text
    assert "on behalf of outside agencies" in text
    assert "3. a LACRIS face-recognition training certificate that has not lapsed" in text
    assert "(of the text shown)" in text
    assert "caution: A paraphrase" in text


@pytest.mark.parametrize(
    ("until", "said"),
    [
        (None, "from 2026-11-23 (not"),
        ("2026-11-24", "from 2026-11-23, until 2026-11-24"),
        ("2026-11-23", "none from 2026-11-23 on, which was its first day"),
        ("2026-11-01", "none from 2026-11-01 on, and its first day was to be 2026-11-23"),
    ],
)
def test_an_effect_that_is_over_before_a_day_has_passed_is_none(
    until: str | None, said: str
) -> None:
    given = response()
    given.directive.effective_from.FromJsonString("2026-11-23T00:00:00Z")
    if until is not None:
        given.directive.ends.FromJsonString(f"{until}T00:00:00Z")
    assert f"legal effect: {said}" in shown(given)


def test_a_text_that_is_not_the_digests_is_noticed() -> None:
    tampered = response()
    tampered.rules = tampered.rules.replace("forbid", "permit")
    assert "NOT OF THE TEXT SHOWN" in shown(tampered)


def test_a_text_that_cannot_be_read_here_is_said_so() -> None:
    newer = response()
    newer.rules = "allow everything"
    assert "cannot be read here" in shown(newer)


def test_a_list_has_a_line_for_each_directive() -> None:
    screen = io.StringIO()
    print_list(Console(file=screen, width=200), [response().directive])
    assert "lapd-2020-11-13" in screen.getvalue()
