"""Writes the alerts of deploy/prometheus as a PrometheusRule, for clusters with Prometheus' operator."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = tuple(
    ROOT / "deploy" / "prometheus" / f"{name}.rules.yaml"
    for name in ("countersign", "kubernetes", "watching")
)
WRITTEN: Final = ROOT / "deploy/k8s/components/prometheus-operator/rules.yaml"
HEAD: Final = """\
# Written by `python tools/write_rules.py` from deploy/prometheus; edit there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: countersign}
spec:
  groups:
"""


def as_object() -> str:
    """The groups of all sources, below the head of the object."""
    lines = [
        line
        for source in SOURCES
        for line in source.read_text().partition("\ngroups:\n")[2].splitlines()
    ]
    return HEAD + "".join(f"  {line}\n" for line in lines)


if __name__ == "__main__":
    WRITTEN.write_text(as_object())
