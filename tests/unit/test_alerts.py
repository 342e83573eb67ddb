"""The alerts: each fires when it must and else not, and each leads to a page that says what to do."""

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support.scrapes import dashboards, every_expression
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


@pytest.mark.parametrize("name", dashboards())
def test_dashboard_can_be_provisioned(name: str) -> None:
    """By file or by a sidecar: its own id, any Prometheus, and every panel with a meaning and a query."""
    one = dashboards()[name]
    assert one["uid"] == f"countersign-{name.removesuffix('.json')}"
    assert [source["type"] for source in one["templating"]["list"]] == ["datasource"]
    panels = [panel for panel in one["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in one["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${source}"}
        at = panel["gridPos"]
        places = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in places) < 24
        assert not taken & places, f"{panel['title']} lies over another"
        taken |= places


def test_prometheus_can_read_every_query_of_a_dashboard(tmp_path: Path) -> None:
    """As rules, all in one call; Grafana puts a time where its variable stands."""
    rules = [
        {"record": f"query:{number}", "expr": one.text.replace("$__rate_interval", "5m")}
        for number, one in enumerate(every_expression())
    ]
    written = tmp_path / "rules.yaml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", written], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
