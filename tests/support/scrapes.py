"""What an installation's processes say of themselves, and what dashboards and alerts ask of it."""

import json
import re
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import yaml

from support.installations import InstallationUnderTest
from support.sources import ROOT
from support.waiting import until

TARGET_LABELS: Final = {"job", "instance", "le"}
"""Prometheus' own, and a histogram's."""
ONLY_WHEN_FAILED: Final = {"error_type"}
"""On both metrics of messaging (tests/integration/test_telemetry.py); where all is well nothing fails."""
ONLY_ON_RECORD: Final = {"countersign_documents_index"}
"""Told where documents are taken from the ledger: see test_broker_follows.py."""
WATCHERS: Final = ("countersign_monitor_", "countersign_mirror_")
"""What a monitor and a mirror measure: see test_cli_mirror_monitor.py."""
DASHBOARDS: Final = ROOT / "deploy/k8s/components/grafana"

_METRIC: Final = re.compile(r"\b(?:countersign|rpc|messaging|http|kube)_[a-z0-9_]+")
_SAMPLE: Final = re.compile(r"^([a-z0-9_]+)(?:\{(.*)\})? ", re.MULTILINE)
_LABEL: Final = re.compile(r'([a-z0-9_]+)="')
_GROUPS: Final = re.compile(r"\bby \(([^)]*)\)")
_CHOSEN: Final = re.compile(r"\{([^}]*)\}")
_CHOICE: Final = re.compile(r'([a-z0-9_]+)(?:=~|!~|!=|=)"')


@contextmanager
def telling_all() -> Iterator[None]:
    """Processes that start meanwhile write spans beside their logs, and can be asked for metrics."""
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("COUNTERSIGN_TELEMETRY__EXPORTER", "console")
        variables.setenv("COUNTERSIGN_TELEMETRY__SCRAPE", "127.0.0.1:0")
        variables.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield


def measured(installation: InstallationUnderTest) -> dict[str, str]:
    """What Prometheus would fetch of each process."""
    return {
        name: _fetched(_port(process.log))
        for name, process in installation.processes.items()
        if name != "nats"
    }


def fetched(log: str) -> str:
    """What Prometheus would fetch of a process that wrote this."""
    return _fetched(_port(log))


def _port(log: str) -> int:
    lines = [line for line in log.splitlines() if '"metrics can be fetched"' in line]
    return int(json.loads(lines[-1])["port"])


def _fetched(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        return str(response.read().decode())


async def until_told(installation: InstallationUnderTest, process: str, what: str) -> bool:
    """Whether a process comes to write this."""

    async def told() -> bool:
        return what in installation.processes[process].log

    return bool(await until(told))


def labels_by_metric(text: str) -> dict[str, set[str]]:
    """Every series of a scrape, with the labels that it bears."""
    found: dict[str, set[str]] = {}
    for name, labels in _SAMPLE.findall(text):
        found.setdefault(name, set()).update(_LABEL.findall(labels))
    return found


@dataclass(frozen=True)
class Expression:
    """A query of a dashboard, or an alert's."""

    where: str
    text: str

    @property
    def metrics(self) -> set[str]:
        """The metrics that it is about."""
        return set(_METRIC.findall(_CHOSEN.sub("", _GROUPS.sub("", self.text))))

    @property
    def labels(self) -> set[str]:
        """The labels that it groups by or chooses by."""
        groups = {one.strip() for part in _GROUPS.findall(self.text) for one in part.split(",")}
        chosen = {one for part in _CHOSEN.findall(self.text) for one in _CHOICE.findall(part)}
        return groups | chosen

    @property
    def foreign(self) -> bool:
        """Whether it is about what others measure."""
        return all(name.startswith("kube_") for name in self.metrics)

    @property
    def watching(self) -> bool:
        """Whether it is about what those measure who watch a log from outside."""
        return all(name.startswith(WATCHERS) for name in self.metrics)

    @property
    def on_record(self) -> bool:
        """Whether only an installation whose directives are not files measures it."""
        return self.metrics <= ONLY_ON_RECORD


def dashboards() -> dict[str, dict[str, Any]]:
    """By file name."""
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def every_expression() -> list[Expression]:
    """Of all dashboards and alerts."""
    found = [
        Expression(f"{name}: {panel['title']}", target["expr"])
        for name, one in dashboards().items()
        for panel in one["panels"]
        for target in panel.get("targets", ())
    ]
    for path in sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += [Expression(rule["alert"], rule["expr"]) for rule in group["rules"]]
    return found


def missing(asked: Iterable[Expression], text: str) -> list[str]:
    """The metrics, and the labels, that somebody asks for and a scrape lacks."""
    labels = labels_by_metric(text)
    asked = list(asked)
    return [
        f"{one.where}: {name}" for one in asked for name in one.metrics if name not in labels
    ] + [
        f"{one.where}: label {label}"
        for one in asked
        for label in one.labels - TARGET_LABELS - ONLY_WHEN_FAILED
        if not any(label in labels.get(name, ()) for name in one.metrics)
    ]
