"""Each process reads the configuration that its pod mounts, and everything that it names is there."""

import base64
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from broker.config import BrokerSettings
from connector.config import ConnectorSettings
from countersign.client.config import ClientSettings
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from shared.probes import LIVE, READY, STARTED, Life
from shared.settings import ProcessSettings, SettingsError
from support.manifests import (
    DEPLOY,
    KUSTOMIZATIONS,
    Manifest,
    Pod,
    PodFolder,
    Rendered,
    World,
    brought,
    paths_in,
    rendered,
    trial_objects,
)
from witness.config import WitnessSettings

SINGLE = DEPLOY / "overlays" / "single-node"
SETTINGS: dict[str, type[ProcessSettings]] = {
    "countersign-broker": BrokerSettings,
    "countersign-connector": ConnectorSettings,
    "countersign-ledger": LedgerSettings,
    "countersign-policy": PolicySettings,
    "countersign-witness": WitnessSettings,
}
PROBES = {"startupProbe": STARTED, "livenessProbe": LIVE, "readinessProbe": READY}


@pytest.fixture(scope="module", name="trial")
def _trial(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return trial_objects(tmp_path_factory.mktemp("trial"))


@pytest.fixture(params=KUSTOMIZATIONS, ids=lambda path: path.name, name="manifests")
def _manifests(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)


def in_earnest(trial: list[Manifest]) -> list[Manifest]:
    """What a trial makes, and something in the place of what only production wants."""
    made = {(one["kind"], one["metadata"]["name"]) for one in trial}
    content = base64.b64encode(b"in earnest it is a secret").decode()
    return trial + [
        {"kind": kind, "metadata": {"name": name}, "data": dict.fromkeys(keys, content)}
        for (kind, name), keys in brought().items()
        if (kind, name) not in made
    ]


def program(container: Manifest) -> str:
    return str(container.get("command", [""])[0])


def configured(pods: tuple[Pod, ...]) -> list[tuple[Pod, Manifest]]:
    """Every container of ours that reads a configuration."""
    return [(pod, one) for pod in pods for one in pod.containers if program(one) in SETTINGS]


def test_each_process_takes_its_configuration_and_finds_what_that_names(
    manifests: Rendered, trial: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World([*manifests.objects, *in_earnest(trial)])
    seen = set()
    for pod, container in configured(manifests.pods):
        folder = PodFolder.make(pod, world, tmp_path / pod.owner, {})
        folder.move_texts()
        for name, value in world.environment(container, pod.owner).items():
            monkeypatch.setenv(name, value)
        (config,) = (one for one in container["command"] if one.endswith(".toml"))
        settings = SETTINGS[program(container)].load(Path(folder.moved(config)))
        seen.add(program(container))
        for path in paths_in(settings.model_dump()):
            writes = any(path.is_relative_to(one) for one in folder.filled_here)
            # What is done once, by hand, leaves alone what the service keeps for itself.
            writes = writes or (pod.kind == "CronJob" and "var" in path.parts)
            assert path.exists() or writes, f"{pod.owner}: {path} is not mounted"
        domain = settings.model_dump().get("trust_domain", "countersign.test")
        assert domain == "countersign.test"
    assert seen == SETTINGS.keys() & {
        program(one) for pod in manifests.pods for one in pod.containers
    }
    assert len(seen) >= 1


def test_the_agency_system_of_the_smoke_test_is_configured(
    trial: list[Manifest], tmp_path: Path
) -> None:
    manifests = rendered(SINGLE)
    world = World([*manifests.objects, *trial])
    folder = PodFolder.make(manifests.pod("smoke"), world, tmp_path, {})
    folder.move_texts()
    (container,) = folder.pod.containers
    config = container["command"][container["command"].index("--config") + 1]
    settings = ClientSettings.load(Path(folder.moved(config)))
    assert all(path.exists() for path in paths_in(settings.model_dump()))


def test_every_directive_of_the_trial_is_published(trial: list[Manifest]) -> None:
    """One that nobody published would bind nobody, while connectors hold it in their copy."""
    (container,) = rendered(SINGLE).pod("publish-directives").spec["containers"]
    (folder,) = (
        one["mountPath"] for one in container["volumeMounts"] if one["name"] == "directives"
    )
    packed = World(trial).files("ConfigMap", "countersign-parties")["directives.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        there = {Path(name).parent for name in archive.getnames()} - {Path()}
    named = {Path(one) for one in container["command"] if one.startswith(folder)}
    assert named == {folder / one for one in there}


def test_a_mistyped_key_would_be_found(trial: list[Manifest], tmp_path: Path) -> None:
    """The tests above would be worth nothing if the settings took whatever stands there."""
    manifests = rendered(SINGLE)
    pod = manifests.pod("broker")
    folder = PodFolder.make(pod, World([*manifests.objects, *trial]), tmp_path, {})
    folder.move_texts()
    (container,) = pod.containers
    config = Path(folder.moved(container["command"][-1]))
    config.write_text(config.read_text().replace("trust_roots", "trust_rots"))
    with pytest.raises(SettingsError, match="trust_rots"):
        BrokerSettings.load(config)


def test_probes_ask_for_what_the_process_answers(
    manifests: Rendered, trial: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World([*manifests.objects, *in_earnest(trial)])
    # One meaning each: the process is asked by these names and no others.
    assert set(Life().answers()) == set(PROBES.values())
    for pod, container in configured(manifests.pods):
        if container not in pod.spec["containers"] or pod.kind == "CronJob":
            continue
        folder = PodFolder.make(pod, world, tmp_path / pod.owner, {})
        folder.move_texts()
        for name, value in world.environment(container, pod.owner).items():
            monkeypatch.setenv(name, value)
        settings = SETTINGS[program(container)].load(Path(folder.moved(container["command"][-1])))
        assert settings.probes is not None
        port = int(settings.probes.address.rpartition(":")[2])
        for kind, name in PROBES.items():
            assert container[kind]["grpc"] == {"port": port, "service": name}, pod.owner
        assert port in pod.ports.values()


def test_ports_are_those_of_the_configuration(manifests: Rendered, trial: list[Manifest]) -> None:
    """What a container says that it listens on is what its process is told to listen on."""
    world = World([*manifests.objects, *in_earnest(trial)])
    for pod in manifests.pods:
        files = {}
        for volume in pod.spec.get("volumes", ()):
            if volume["name"] == "config":
                files = world.volume(volume) or {}
        told = {
            int(port)
            for text in files.values()
            for port in re.findall(rb'"0\.0\.0\.0:(\d+)"', text)
        }
        told |= {
            int(value.removeprefix("0.0.0.0:"))
            for one in pod.containers
            for value in world.environment(one, pod.owner).values()
            if value.startswith("0.0.0.0:")
        }
        assert pod.kind == "CronJob" or told == set(pod.ports.values()), pod.owner


def test_the_bus_takes_its_configuration(
    manifests: Rendered, trial: list[Manifest], tmp_path: Path
) -> None:
    world = World([*manifests.objects, *in_earnest(trial)])
    for pod in manifests.pods:
        for container in pod.spec["containers"]:
            if not container["image"].partition(":")[0].endswith("nats"):
                continue
            folder = PodFolder.make(pod, world, tmp_path / pod.owner, {})
            folder.move_texts()
            done = subprocess.run(
                [
                    Path(sys.executable).with_name("nats-server"),
                    "-t",
                    *map(folder.moved, container["args"]),
                ],
                env=world.environment(container, pod.owner),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
