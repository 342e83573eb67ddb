"""The alerts: each fires when it must and else not, and each leads to a page that says what to do."""

import subprocess
from typing import Any, Final

import pytest
import yaml

from support.sources import ROOT, listed

RULES: Final = ROOT / "deploy" / "prometheus"
IN_KUBERNETES: Final = ROOT / "deploy/k8s/components/prometheus-operator/rules.yaml"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"

Rule = dict[str, Any]
GROUPS: Final = [
    group
    for path in sorted(RULES.glob("*.rules.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
]
ALERTS: Final[dict[str, Rule]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}


def test_promtool_finds_each_alert_raised_when_it_must_be_and_else_not() -> None:
    tested = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"],
        cwd=RULES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_both_ways() -> None:
    cases = [
        case
        for test in yaml.safe_load((RULES / "tests.yaml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    raised = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert raised == silent == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_alert_says_what_is_wrong_and_leads_to_its_page(name: str) -> None:
    rule = ALERTS[name]
    assert name.startswith("Countersign")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    said = rule["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    page = ROOT / said["runbook_url"]
    assert page.parent == RUNBOOKS
    assert f"`{name}`" in page.read_text()


def test_no_page_names_an_alert_that_is_not_there() -> None:
    offenders = [
        f"{path.name}: {word}"
        for path in sorted(RUNBOOKS.glob("*.md"))
        for word in path.read_text().replace("`", " ").split()
        if word.startswith("Countersign")
        and word.isalpha()
        and word not in {*ALERTS, "Countersign"}
    ]
    assert not offenders, listed(offenders)


def test_kubernetes_has_the_same_alerts() -> None:
    """`python tools/write_rules.py` writes them there."""
    assert yaml.safe_load(IN_KUBERNETES.read_text())["spec"]["groups"] == GROUPS


def test_every_page_says_what_is_seen_meant_done_and_how_one_knows_that_it_is_over() -> None:
    wanted = ["What you see", "What it means", "What to do", "How to see that it is over"]
    offenders = []
    for path in sorted(RUNBOOKS.glob("*.md")):
        headings = [line[3:] for line in path.read_text().splitlines() if line.startswith("## ")]
        if path.name != "README.md" and [one for one in headings if one in wanted] != wanted:
            offenders.append(path.name)
    assert not offenders, listed(offenders)


def test_the_list_of_runbooks_names_every_page_with_how_it_was_tried() -> None:
    listing = (RUNBOOKS / "README.md").read_text()
    rows = {
        line.split("](")[1].split(")")[0]: line for line in listing.splitlines() if "](" in line
    }
    for path in sorted(RUNBOOKS.glob("*.md")):
        if path.name == "README.md":
            continue
        assert path.name in rows, path.name
        named = [word for word in rows[path.name].split("`") if word.startswith("tests/")]
        assert named or "by hand" in rows[path.name], path.name
        for one in named:
            file_name, _, test = one.partition("::")
            assert f"def {test}(" in (ROOT / file_name).read_text(), one
