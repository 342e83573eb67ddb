"""Checks the rendered manifests: Kubernetes' own schemas, those of custom resources, and a linter's policies.

Runs in the environment of requirements/kubernetes.txt (`make k8s-check`) and asks nothing of any network:

    check_manifests.py VERSION...
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
DEPLOY: Final = ROOT / "deploy" / "k8s"
SCHEMAS: Final = ROOT / "tests" / "data" / "custom_resources"
BIN: Final = Path(sys.executable).parent
PASSED_OVER: Final = {
    "CKV_K8S_11": "a limit of processor time holds a commit up in its middle; memory is limited",
    "CKV_K8S_15": "images are pinned by version or digest, so that a pull each time brings nothing new",
    "CKV_K8S_43": "a version by default: the digest is that of the operator's own build",
}
"""What the linter wants and we do not, with the reason."""


def render(folder: Path) -> str:
    """Render one kustomization, as `kubectl apply -k` does."""
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{folder.relative_to(ROOT)}: {done.stderr}")
    return done.stdout


def faults(one: dict[str, Any], versions: list[str]) -> list[str]:
    """What the schemas say of one object."""
    group, _, version = one["apiVersion"].rpartition("/")
    if "." in group and not group.endswith(".k8s.io"):
        return _custom_faults(one, group, version)
    if group == "gateway.networking.k8s.io":
        return _custom_faults(one, group, version)
    found = []
    for release in versions:
        try:
            kubernetes_validate.validate(one, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            # Its other lines are the whole schema.
            found.append(f"Kubernetes {release}: {str(error).splitlines()[0]}")
    return found


def _custom_faults(one: dict[str, Any], group: str, version: str) -> list[str]:
    path = SCHEMAS / group / f"{one['kind'].lower()}_{version}.json"
    if not path.exists():
        return [f"there is no schema {path.relative_to(ROOT)}"]
    validator = jsonschema.Draft202012Validator(_closed(json.loads(path.read_text())))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(one)]


def _closed(schema: Any) -> Any:
    """The schema, refusing fields that it does not know: an API server would drop them in silence."""
    if isinstance(schema, dict):
        closed = {key: _closed(value) for key, value in schema.items()}
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
        return closed
    return [_closed(one) for one in schema] if isinstance(schema, list) else schema


def lint(text: str) -> str:
    """What the linter has against it; empty when nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rendered.yaml"
        file.write_text(text)
        done = subprocess.run(
            [BIN / "checkov", "-f", file, "--framework", "kubernetes", "--compact", "--quiet",
             "--skip-download", "--skip-check", ",".join(PASSED_OVER)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}"


def main(versions: list[str]) -> int:
    """Check every overlay; exit code 1 when something is wrong."""
    bad = 0
    for folder in sorted(path.parent for path in DEPLOY.glob("[eo]*/*/kustomization.yaml")):
        text = render(folder)
        objects = list(yaml.safe_load_all(text))
        found = [
            f"{one['kind']} {one['metadata']['name']}: {fault}"
            for one in objects
            for fault in faults(one, versions)
        ]
        complaint = lint(text)
        verdict = "good" if not found and not complaint else "BAD"
        print(f"{folder.relative_to(DEPLOY)}: {len(objects)} objects, {verdict}")
        for fault in found:
            print(f"  {fault}")
        if complaint:
            print(complaint)
        bad += verdict == "BAD"
    print(f"against Kubernetes {' and '.join(versions)}; the linter's checks passed over:")
    for check, reason in PASSED_OVER.items():
        print(f"  {check}: {reason}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
