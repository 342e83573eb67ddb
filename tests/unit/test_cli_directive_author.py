"""`countersign directive init`, `sign` and `diff`, as an author calls them."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from countersign.cli.main import exit_code
from directive.signature import SIGNATURE_FILE
from shared.signing import SigningKey
from support.directives import DIRECTIVES, LAPD
from support.ledgers import ORIGIN, SIGNER

NAME = "lapd-2020-11-13"


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(SigningKey.generate().pem())
    return file


def changed(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of LAPD's directive with one change."""
    copy = Path(shutil.copytree(DIRECTIVES / NAME, folder / NAME))
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    return copy


@pytest.mark.parametrize("party", ["CA0194200", "CA0190000", "US-CA", None])
def test_a_directive_that_was_just_begun_passes_everything(
    tmp_path: Path, party: str | None
) -> None:
    folder = tmp_path / "ours-2026"
    chosen = ["--party", party] if party else []
    assert exit_code(["directive", "init", str(folder), *chosen]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "cases.yaml", "directive.toml", "rules.cedar",
    ]  # fmt: skip
    assert exit_code(["directive", "lint", str(folder)]) == 0
    assert exit_code(["directive", "test", str(folder)]) == 0


def test_what_to_do_next_is_said_with_the_registry_that_knows_the_party(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "our registry.toml"
    registry.write_text('[agencies.TX0000001]\nname = "Ours"\njurisdiction = "US-TX"\n')
    begun = ["directive", "init", str(tmp_path / "ours"), "--registry", str(registry)]
    assert exit_code(begun) == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("Next: ")]
    assert exit_code(shlex.split(line)[2:]) == 0


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "rules.cedar").write_text("mine")
    assert exit_code(["directive", "init", str(tmp_path / "taken")]) == 2
    assert (tmp_path / "taken" / "rules.cedar").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments", [["Not A Name"], ["ours", "--party", "XX0000000"], ["ours", "--prefix", "x"]]
)
def test_what_cannot_be_begun_is_a_usage_error_or_does_not_pass(
    tmp_path: Path, arguments: list[str]
) -> None:
    name, *options = arguments
    code = exit_code(["directive", "init", str(tmp_path / name), *options])
    assert code == 2
    assert not (tmp_path / name).exists()


def test_a_directive_is_signed_and_its_signature_verifies(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ours-2026"
    exit_code(["directive", "init", str(folder), "--party", "CA0194200"])
    capsys.readouterr()
    arguments = [str(folder), "--key", str(key), "--name", "pd.example/d", "--log", ORIGIN]
    assert exit_code(["directive", "sign", "--json", *arguments]) == 0
    vkey = json.loads(capsys.readouterr().out)["verifier_key"]
    trust = tmp_path / "trust.json"
    for party, code in (("CA0194200", 0), ("CA0190000", 1)):
        trust.write_text(json.dumps(trust_roots({party: [vkey]})))
        assert exit_code(["directive", "test", str(folder), "--trust-roots", str(trust)]) == code
        assert exit_code(["directive", "lint", str(folder), "--trust-roots", str(trust)]) == code
    assert "SIGNER_UNKNOWN" in capsys.readouterr().out


def trust_roots(signers: dict[str, list[str]]) -> dict[str, Any]:
    """Trust roots that say little else."""
    other = "A" * 43 + "="
    return {
        "log_verifier_keys": [SIGNER.verifier.vkey],
        "broker_verify_keys": [other],
        "directive_signers": signers,
    }


def test_nothing_is_signed_that_could_not_be_published(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = changed(tmp_path, "cases.yaml", "expect: permit", "expect: forbid")
    arguments = [
        str(folder),
        "--key",
        str(key),
        "--name",
        "pd.example/d",
        "--log",
        ORIGIN,
        "--received-late",
    ]
    assert exit_code(["directive", "sign", *arguments]) == 1
    assert "CASE_FAILS" in capsys.readouterr().out
    assert not (folder / SIGNATURE_FILE).exists()


def test_an_effect_in_the_past_is_signed_only_when_it_is_meant(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(DIRECTIVES / NAME, tmp_path / NAME))
    arguments = [
        "directive",
        "sign",
        str(folder),
        "--key",
        str(key),
        "--name",
        "pd.example/d",
        "--log",
        ORIGIN,
    ]
    assert exit_code(arguments) == 1
    assert "EFFECT_PAST" in capsys.readouterr().out
    assert not (folder / SIGNATURE_FILE).exists()
    assert exit_code([*arguments, "--received-late"]) == 0
    assert (folder / SIGNATURE_FILE).exists()


def difference(capsys: pytest.CaptureFixture[str], *folders: Path) -> dict[str, Any]:
    capsys.readouterr()
    assert exit_code(["directive", "diff", "--json", *map(str, folders)]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_directive_does_not_differ_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    same = difference(capsys, DIRECTIVES / NAME, DIRECTIVES / NAME)
    assert same["manifest"] == same["verdicts"] == same["rules"]["changed"] == []
    assert same["cases_asked"] > 30


def test_comments_and_line_breaks_are_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(
        tmp_path, "rules.cedar", "when { principal.active }", "when {\n// so\n principal.active }"
    )
    assert difference(capsys, DIRECTIVES / NAME, copy)["rules"]["changed"] == []


def test_a_changed_condition_is_shown_with_the_cases_that_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(
        tmp_path,
        "rules.cedar",
        'when { context.caseNumber != "" }',
        "when { context.narrativeGiven }",
    )
    found = difference(capsys, DIRECTIVES / NAME, copy)
    (rule,) = found["rules"]["changed"]
    assert rule["id"] == "LAPD-1"
    assert [one["what"] for one in rule["changes"]] == ["condition 4"]
    assert "narrativeGiven" in rule["changes"][0]["new"]
    (verdict,) = found["verdicts"]
    assert verdict["case"] == "no case number"
    assert verdict["old"] == "forbid; unmet LAPD-1#4"
    assert verdict["new"].startswith("permit; by LAPD-1")


def test_a_fact_that_no_case_states_is_named_in_what_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(
        tmp_path,
        "rules.cedar",
        'when { context.caseNumber != "" }',
        "when { context.emergency }",
    )
    manifest = copy / "directive.toml"
    manifest.write_text(manifest.read_text().replace('vocabulary = "1"', 'vocabulary = "2"'))
    verdicts = difference(capsys, DIRECTIVES / NAME, copy)["verdicts"]
    said = {one["new"] for one in verdicts}
    assert "cannot tell; faults FACT_UNKNOWN; not known: emergency" in said


def test_rules_citations_and_dates_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(
        tmp_path, "directive.toml", "effective_from = 2020-11-13", "effective_from = 2027-01-01"
    )
    rules = copy / "rules.cedar"
    text = (
        rules.read_text()
        .replace("LAPD-5", "LAPD-6")
        .replace("LACRIS is the only system", "Another")
    )
    rules.write_text(text)
    found = difference(capsys, DIRECTIVES / NAME, copy)
    assert found["manifest"] == [
        {"what": "effective_from", "old": "2020-11-13", "new": "2027-01-01"}
    ]
    assert (found["rules"]["added"], found["rules"]["removed"]) == (["LAPD-6"], ["LAPD-5"])
    (rule,) = found["rules"]["changed"]
    assert [one["what"] for one in rule["changes"]] == ["citation"]
    assert all("LAPD-6" in one["new"] for one in found["verdicts"])
    assert exit_code(["directive", "diff", str(DIRECTIVES / NAME), str(copy)]) == 0
    assert "1 rule(s) added, 1 removed, 1 changed" in capsys.readouterr().out


def test_what_cannot_be_compared_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(tmp_path, "rules.cedar", "principal.active", "principal.actife")
    assert exit_code(["directive", "diff", str(DIRECTIVES / NAME), str(copy)]) == 1
    assert "UNKNOWN_TERM" in capsys.readouterr().out
    other = DIRECTIVES / "burbank-asks-others"
    assert exit_code(["directive", "diff", str(DIRECTIVES / NAME), str(other)]) == 2


def test_lint_beside_what_is_in_force_finds_what_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = changed(tmp_path, "directive.toml", f'name = "{NAME}"', 'name = "lapd-2027"')
    renamed = copy.rename(tmp_path / "lapd-2027")
    assert exit_code(["directive", "lint", str(renamed)]) == 0
    assert exit_code(["directive", "lint", str(renamed), "--beside", str(DIRECTIVES)]) == 1
    assert "VERSIONS_OVERLAP" in capsys.readouterr().out


def more_of_lapds(folder: Path, *, replaces: bool) -> Path:
    """The text that `directive init` writes, beside LAPD's or in the place of one."""
    new = folder / "lapd-2027"
    assert exit_code(["directive", "init", str(new), "--party", LAPD, "--prefix", "LAPD-"]) == 0
    if replaces:
        with (new / "directive.toml").open("a") as file:
            file.write(f'replaces = "{NAME}"\n')
        return new
    for path in (new / "rules.cedar", new / "cases.yaml"):
        text = path.read_text()
        path.write_text(text.replace("LAPD-1", "LAPD-21").replace('LAPD-2"', 'LAPD-22"'))
    cases = new / "cases.yaml"
    cases.write_text(cases.read_text().replace("LAPD-2]", "LAPD-22]"))
    return new


@pytest.mark.parametrize("replaces", [False, True])
def test_what_becomes_permitted_beside_what_is_in_force_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, replaces: bool
) -> None:
    """A text may pass every gate and let an untrained officer search: one permit of any is enough."""
    new = more_of_lapds(tmp_path, replaces=replaces)
    test = ["directive", "test", str(new), "--beside", str(DIRECTIVES)]
    capsys.readouterr()
    assert exit_code([*test, "--json"]) == 0
    (tried,) = json.loads(capsys.readouterr().out)["directives"]
    told = {one["case"]: (one["of"], one["old"], one["new"]) for one in tried["verdicts"]}
    by = "LAPD-1" if replaces else "LAPD-21"
    lapsed = (NAME, "forbid; unmet LAPD-1#3", f"permit; by {by}; duties notice")
    assert told["T03 the training certificate has lapsed"] == lapsed
    assert ("T01 on behalf of another agency (the catalogue's is Glendale)" in told) == replaces
    assert "T05 a listed and trained member, own case, on LACRIS" not in told, "it stays permitted"
    assert exit_code(test) == 0
    assert "becomes permitted T03" in capsys.readouterr().out


def test_a_text_that_only_forbids_makes_nothing_permitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "in-force"
    for one in DIRECTIVES.iterdir():
        if (one / "directive.toml").exists() and one.name != "lapd-commission-2021-01-12":
            shutil.copytree(one, others / one.name)
    capsys.readouterr()
    new = str(DIRECTIVES / "lapd-commission-2021-01-12")
    assert exit_code(["directive", "test", new, "--beside", str(others), "--json"]) == 0
    (tried,) = json.loads(capsys.readouterr().out)["directives"]
    told = {one["case"]: one["new"] for one in tried["verdicts"]}
    assert told == {
        "T06 counting a crowd": "forbid; by LAPD-PC-1",
        "immigration enforcement": "forbid; by LAPD-PC-1",
    }


def test_a_log_that_has_no_such_name_is_signed_for_by_nobody(tmp_path: Path, key: Path) -> None:
    folder = Path(shutil.copytree(DIRECTIVES / NAME, tmp_path / NAME))
    arguments = ["directive", "sign", str(folder), "--key", str(key), "--name", "pd.example/d"]
    for log in ((), ("--log", "two words"), ("--log", "")):
        assert exit_code([*arguments, "--received-late", *log]) == 2
    assert not (folder / SIGNATURE_FILE).exists()
