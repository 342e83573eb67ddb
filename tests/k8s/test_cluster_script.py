"""`make test-k8s` without a cluster: what it says that it needs, and what it would do to one."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.manifests import DEPLOY, KUSTOMIZATIONS, kubectl, rendered
from support.sources import ROOT

SCRIPT = ROOT / "tools" / "test_k8s.sh"
# Does what it is told, and writes down what that was.
KUBECTL = """#!/bin/sh
echo "$*" >>"$SAID"
case "$*" in "get namespace"*) echo "$THERE"; exit "$ANSWERS" ;; *"-f -"*) cat >/dev/null ;; esac
"""
COUNTERSIGN = "#!/bin/sh\necho 'kind: List'\n"
SINGLE = DEPLOY / "overlays" / "single-node"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """With the manifests, and stand-ins for the programs."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("kubectl", KUBECTL), ("countersign", COUNTERSIGN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


def run(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    told = {
        "PATH": f"{folder / 'programs'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "SAID": str(folder / "said"),
        "THERE": "",
        "ANSWERS": "0",
    }
    return subprocess.run(
        ["/bin/bash", SCRIPT],
        cwd=folder,
        env=told | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_cluster_it_says_what_it_needs(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0
    assert done.stdout.startswith("SKIPPED")
    variables = set(re.findall(r"\$\{(KUBECONFIG|COUNTERSIGN_[A-Z]+)", SCRIPT.read_text()))
    assert len(variables) == 3
    for one in (*variables, "kubectl", "StorageClass", "NetworkPolicies"):
        assert one in done.stdout, one
    assert not (folder / "said").exists()


def test_without_kubectl_it_says_so(folder: Path) -> None:
    bare = folder / "bare"
    bare.mkdir()
    (bare / "cat").symlink_to("/bin/cat")
    done = run(folder, KUBECONFIG="a-cluster", PATH=str(bare))
    assert done.returncode == 2
    assert done.stderr.startswith("There is no kubectl")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ANSWERS": "1"}, "does not answer"),
        ({"THERE": "namespace/countersign"}, "has a namespace countersign already"),
    ],
)
def test_what_stands_in_its_way_is_said_and_nothing_is_made(
    folder: Path, variables: dict[str, str], said: str
) -> None:
    done = run(folder, KUBECONFIG="a-cluster", **variables)
    assert done.returncode == 2
    assert said in done.stderr
    assert "apply" not in (folder / "said").read_text()


def test_it_makes_what_the_overlay_has_and_waits_for_all_of_it(folder: Path) -> None:
    digest = f"sha256:{'1' * 64}"
    done = run(
        folder,
        KUBECONFIG="a-cluster",
        COUNTERSIGN_SERVICES="registry.example:5000/services:0.9",
        COUNTERSIGN_CONNECTOR=f"registry.example/connector@{digest}",
    )
    assert done.returncode == 0, done.stderr
    said = (folder / "said").read_text()
    assert SINGLE in KUSTOMIZATIONS
    manifests = rendered(SINGLE)
    jobs = re.findall(r"--from=cronjob/(\S+)", said)
    assert jobs == ["ledger-begin", "publish-directives", "smoke"]
    assert set(jobs) <= {one["metadata"]["name"] for one in manifests.of_kind("CronJob")}
    waited = set(re.findall(r"rollout status \S+ (\S+)", said))
    assert waited == {
        f"{one['kind'].lower()}/{one['metadata']['name']}"
        for one in manifests.of_kind("Deployment", "StatefulSet")
    }
    # Whoever begins a log before its pods, or searches before there are directives, waits for ever.
    order = ["namespace.yaml", "-f -", "apply --server-side -k", *jobs]
    places = [said.index(one) for one in order]
    assert places == sorted(places)
    given = subprocess.run(
        [kubectl(), "kustomize", folder / ".scratch" / "test-k8s" / "given"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    images = set(re.findall(r"image: (\S+)", given.stdout))
    assert images >= {"registry.example:5000/services:0.9", f"registry.example/connector@{digest}"}
    assert not [one for one in images if one.startswith("countersign/")]
