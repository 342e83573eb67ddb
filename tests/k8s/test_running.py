"""The single-node overlay as it would run: each pod's own files, environment, command and probes, here.

What a cluster would do is done by hand: mounts become folders, names of services the loopback interface, and
each port one that is free. Everything else is what the manifests say.
"""

import contextlib
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.manifests import DEPLOY, Manifest, Pod, PodFolder, World, rendered, trial_objects
from support.nats_servers import free_port
from support.waiting import until

ENDS_S_MAX = 60
JOB_S_MAX = 120


@dataclass
class Cluster:
    """One machine that plays one."""

    world: World
    root: Path
    services: Mapping[str, Pod]
    """By the names under which they are connected to."""
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def port(self, pod: Pod, port: int) -> int:
        """The port of this machine that stands for a pod's."""
        return self.ports.setdefault((pod.owner, port), free_port())

    def folder(self, pod: Pod) -> PodFolder:
        """A pod's files, in which every path and address is one of this machine."""
        claims = {
            f"{name}-{pod.owner}-0": self.root / "claims" / f"{name}-{pod.owner}-0"
            for pod in self.services.values()
            for name in pod.claims
        }
        folder = PodFolder.make(pod, self.world, self.root / pod.owner, claims)
        folder.move_texts()
        for mount in folder.mounts:
            for path in (folder.root / mount.lstrip("/")).glob("*"):
                if path.suffix in (".toml", ".conf") and "config" in path.parts:
                    path.write_text(self._addressed(pod, path.read_text()))
        return folder

    def _addressed(self, pod: Pod, text: str) -> str:
        for host, owner in [(r"0\.0\.0\.0", pod), *self.services.items()]:
            for address in set(re.findall(rf'(?<=["/]){host}:\d+(?=")', text)):
                port = self.port(owner, int(address.rpartition(":")[2]))
                text = re.sub(rf'(?<=["/]){re.escape(address)}(?=")', f"127.0.0.1:{port}", text)
        return text

    def command(self, pod: Pod, container: Manifest, folder: PodFolder) -> list[str]:
        """What the container runs, by the programs of this environment."""
        given = [*container.get("command", ["nats-server"]), *container.get("args", ())]
        program = (
            sys.executable if given[0] == "python" else Path(sys.executable).with_name(given[0])
        )
        return [str(program), *(folder.moved(one) for one in given[1:])]

    def environment(self, pod: Pod, container: Manifest) -> dict[str, str]:
        """What the image and the manifest set, and nothing of ours."""
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        return kept | self.world.environment(container, pod)

    def complete(self, pod: Pod) -> "subprocess.CompletedProcess[str]":
        """Run a pod that ends."""
        folder = self.folder(pod)
        self._prepare(pod, folder)
        (container,) = pod.spec["containers"]
        return self._run(pod, container, folder)

    def start(self, pod: Pod) -> None:
        """Start a pod that stays."""
        folder = self.folder(pod)
        self._prepare(pod, folder)
        (container,) = pod.spec["containers"]
        with (self.root / f"{pod.owner}.log").open("ab") as log:
            self.running[pod.owner] = subprocess.Popen(
                self.command(pod, container, folder),
                env=self.environment(pod, container),
                stdout=log,
                stderr=log,
            )

    def _prepare(self, pod: Pod, folder: PodFolder) -> None:
        for container in pod.spec.get("initContainers", ()):
            done = self._run(pod, container, folder)
            assert done.returncode == 0, done.stderr

    def _run(
        self, pod: Pod, container: Manifest, folder: PodFolder
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(pod, container, folder),
            env=self.environment(pod, container),
            capture_output=True,
            text=True,
            check=False,
            timeout=JOB_S_MAX,
        )

    async def ready(self, pod: Pod) -> None:
        """Wait until every probe of the manifest succeeds."""
        (container,) = pod.spec["containers"]
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):

            async def succeeds(probe: Manifest = container[kind]) -> bool | None:
                assert self.running[pod.owner].poll() is None, self.log(pod)
                return True if await self._asked(pod, probe) else None

            try:
                await until(succeeds)
            except AssertionError as error:
                raise AssertionError(f"{pod.owner}: {kind}: {error}\n{self.log(pod)}") from None

    async def _asked(self, pod: Pod, probe: Manifest) -> bool:
        if "httpGet" in probe:
            asked = probe["httpGet"]
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.port(pod, pod.ports[asked["port"]]), timeout=5
            )
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("GET", asked["path"])
                return connection.getresponse().status == 200
            return False
        port = self.port(pod, probe["grpc"]["port"])
        request = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def log(self, pod: Pod) -> str:
        """What a pod has written."""
        return (self.root / f"{pod.owner}.log").read_text()

    def stop(self, owner: str) -> int:
        """What the kubelet does; gives the exit code."""
        process = self.running.pop(owner)
        process.terminate()
        return process.wait(ENDS_S_MAX)

    def kill(self) -> None:
        """End what is left."""
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture(name="cluster")
def _cluster(tmp_path: Path) -> Iterator[Cluster]:
    manifests = rendered(DEPLOY / "overlays" / "single-node")
    world = World([*manifests.objects, *trial_objects(tmp_path / "trial")])
    services = {pod.name: pod for pod in manifests.pods if pod.kind != "CronJob"}
    made = Cluster(world, tmp_path / "pods", services)
    try:
        yield made
    finally:
        made.kill()


async def test_a_search_goes_through_the_pods_of_the_single_node_overlay(cluster: Cluster) -> None:
    manifests = rendered(DEPLOY / "overlays" / "single-node")
    pods = cluster.services
    begun = cluster.complete(manifests.pod("ledger-begin"))
    assert begun.stdout.startswith("BEGUN"), begun.stderr
    for name in ("nats", "ledger", "policy", "broker", "connector"):
        cluster.start(pods[name])
        await cluster.ready(pods[name])
    done = cluster.complete(manifests.pod("smoke"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{cluster.log(pods['broker'])}"
    again = cluster.complete(manifests.pod("ledger-begin"))
    assert again.stdout.startswith("THERE"), again.stderr
    for name in ("connector", "broker", "policy", "ledger"):
        assert cluster.stop(name) == 0, cluster.log(pods[name])
