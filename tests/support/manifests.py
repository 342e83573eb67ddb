"""The manifests as kubectl renders them, and their pods as folders on this machine."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from countersign.installation import bundled
from support.sources import ROOT

DEPLOY: Final = ROOT / "deploy" / "k8s"
KUSTOMIZATIONS: Final = sorted(
    path.parent
    for folder in ("overlays", "examples")
    for path in DEPLOY.glob(f"{folder}/*/kustomization.yaml")
)
TOOLS: Final = ROOT / ".scratch" / "kubernetes" / "bin"
IN_IMAGE: Final = {"/opt/countersign/faces": bundled.gallery_folder().parent}
"""What lies in our images and not in a mount."""

Manifest = dict[str, Any]


def kubectl() -> str:
    """The program that renders, or a skipped test: `make k8s-check` installs it."""
    found = shutil.which("kubectl", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("kubectl is not installed: run `make k8s-check`")
    return found


@cache
def rendered(folder: Path) -> "Rendered":
    """What `kubectl kustomize` makes of a folder."""
    done = subprocess.run(
        [kubectl(), "kustomize", folder], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # libyaml's reader: that in Python takes longer than all that is then asked of the manifests.
    return Rendered(tuple(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)))


@dataclass(frozen=True)
class Pod:
    """A pod of a workload."""

    kind: str
    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    claims: tuple[str, ...] = ()
    """Volumes that the workload makes claims for."""

    @property
    def name(self) -> str:
        """Which part it is, as policies and services call it."""
        return self.labels["app.kubernetes.io/name"]

    @property
    def containers(self) -> list[Manifest]:
        """Those that go first, then those that stay."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        """What it listens on, by name."""
        return {
            port["name"]: port["containerPort"]
            for container in self.spec["containers"]
            for port in container.get("ports", ())
        }


@dataclass(frozen=True)
class Rendered:
    """The objects of one folder."""

    objects: tuple[Manifest, ...]

    def of_kind(self, *kinds: str) -> list[Manifest]:
        """All objects of some kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    def named(self, kind: str, name: str) -> Manifest:
        """One object."""
        (found,) = (one for one in self.of_kind(kind) if one["metadata"]["name"] == name)
        return found

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """A pod of each workload."""
        return tuple(pod for one in self.objects if (pod := _pod(one)) is not None)

    def pod(self, owner: str) -> Pod:
        """The pod of one workload."""
        (found,) = (pod for pod in self.pods if pod.owner == owner)
        return found

    def chosen(self, selector: Mapping[str, Any]) -> list[Pod]:
        """The pods that a selector chooses."""
        assert not selector.keys() - {"matchLabels", "matchExpressions"}
        return [pod for pod in self.pods if _chooses(selector, pod.labels)]


def _chooses(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In", "our own use nothing else"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _pod(one: Manifest) -> Pod | None:
    spec = one.get("spec", {})
    if one["kind"] == "CronJob":
        template = spec["jobTemplate"]["spec"]["template"]
    elif one["kind"] in ("Deployment", "StatefulSet", "Job"):
        template = spec["template"]
    else:
        return None
    claims = tuple(claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ()))
    labels = template["metadata"]["labels"]
    return Pod(one["kind"], one["metadata"]["name"], labels, template["spec"], claims)


def files_of(one: Manifest) -> dict[str, bytes]:
    """What a ConfigMap or Secret holds, by key."""
    if one["kind"] == "Secret":
        return {key: base64.b64decode(value) for key, value in one.get("data", {}).items()}
    plain = {key: value.encode() for key, value in (one.get("data") or {}).items()}
    packed = one.get("binaryData") or {}
    return plain | {key: base64.b64decode(value) for key, value in packed.items()}


class World:
    """The objects that pods mount: rendered ones, and what an operator brings."""

    def __init__(self, objects: Iterable[Manifest]) -> None:
        self._files = {
            (one["kind"], one["metadata"]["name"]): files_of(one)
            for one in objects
            if one["kind"] in ("ConfigMap", "Secret")
        }

    def environment(self, container: Manifest, pod_name: str) -> dict[str, str]:
        """The variables of a container."""
        made = {}
        for variable in container.get("env", ()):
            source = variable.get("valueFrom")
            if source is None:
                made[variable["name"]] = variable["value"]
            elif "configMapKeyRef" in source:
                key = source["configMapKeyRef"]
                made[variable["name"]] = self._files["ConfigMap", key["name"]][key["key"]].decode()
            else:
                made[variable["name"]] = pod_name
        return made

    def files(self, kind: str, name: str) -> dict[str, bytes]:
        """What one object holds."""
        return self._files[kind, name]

    def volume(self, volume: Manifest) -> dict[str, bytes] | None:
        """The files of a volume; None for one that the pod fills itself."""
        if "projected" in volume:
            made: dict[str, bytes] = {}
            for source in volume["projected"]["sources"]:
                made |= self.volume(source) or {}
            return made
        for key, kind, named in (
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
        ):
            if (source := volume.get(key)) is not None:
                found = self._files[kind, source.get(named) or source["name"]]
                items = source.get("items")
                if items is None:
                    return found
                return {item["path"]: found[item["key"]] for item in items}
        return None


@dataclass(frozen=True)
class PodFolder:
    """A pod's file system below one folder of this machine."""

    pod: Pod
    root: Path
    filled_here: tuple[Path, ...]
    """Where the pod itself writes."""
    mounts: tuple[str, ...]

    @classmethod
    def make(cls, pod: Pod, world: World, root: Path, filled: Mapping[str, Path]) -> "PodFolder":
        """Write every mount. `filled` says where claims lie that several pods use."""
        by_name = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        here, mounts = [], set()
        for container in pod.containers:
            for mount in container.get("volumeMounts", ()):
                assert "subPath" not in mount, "files mounted so are never renewed"
                target = root / mount["mountPath"].lstrip("/")
                mounts.add(mount["mountPath"])
                volume = by_name.get(mount["name"], {})
                files = world.volume(volume)
                claim = volume.get("persistentVolumeClaim", {}).get("claimName")
                if claim is None and mount["name"] in pod.claims:
                    claim = f"{mount['name']}-{pod.owner}-0"
                if claim in filled:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    filled[claim].mkdir(parents=True, exist_ok=True)
                    if not target.is_symlink():
                        target.symlink_to(filled[claim])
                target.mkdir(parents=True, exist_ok=True)
                if files is None:
                    here.append(target)
                for name, content in (files or {}).items():
                    (target / name).write_bytes(content)
        return cls(pod, root, tuple(here), tuple(sorted(mounts, key=len, reverse=True)))

    def moved(self, text: str) -> str:
        """A text in which paths of the pod are paths of this machine."""
        moves = {mount: str(self.root / mount.lstrip("/")) for mount in self.mounts}
        moves |= {inside: str(outside) for inside, outside in IN_IMAGE.items()}
        named = "|".join(re.escape(one) for one in sorted(moves, key=len, reverse=True))
        return re.sub(rf'(?<![\w/.])({named})(?=[/"\s]|$)', lambda found: moves[found[1]], text)

    def move_texts(self) -> list[Path]:
        """Move what our own configuration files name; give them."""
        files = [
            path
            for mount in self.mounts
            for path in (self.root / mount.lstrip("/")).iterdir()
            if path.suffix in (".toml", ".conf") and "config" in path.parts
        ]
        for path in files:
            path.write_text(self.moved(path.read_text()))
        return files


def trial_objects(folder: Path) -> list[Manifest]:
    """What `countersign kubernetes trial` writes."""
    from countersign.installation.kubernetes import trial
    from shared.clock import SystemClock

    made = trial(folder, "countersign", SystemClock().now())
    return [dict(one) for one in json.loads(json.dumps(made))]


def brought() -> dict[tuple[str, str], set[str]]:
    """What the README says that an operator brings: kind and name, with the keys."""
    page = (DEPLOY / "README.md").read_text()
    rows = re.findall(r"^\| (Secret|ConfigMap) `([\w-]+)` \| ([^|]+) \|", page, re.MULTILINE)
    return {(kind, name): set(re.findall(r"`([\w.-]+)`", keys)) for kind, name, keys in rows}


def paths_in(value: object) -> Iterator[Path]:
    """Every path of a configuration."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from paths_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from paths_in(one)
