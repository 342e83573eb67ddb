"""Pods as processes of this machine: each with its own files, environment, command and probes.

What a cluster would do is done by hand: mounts become folders, names of services the loopback interface, and
each port one that is free. Everything else is what the manifests say.
"""

import contextlib
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.forked import ForkedProcess, fork, run_forked
from support.manifests import Manifest, Pod, PodFolder, Rendered, World
from support.nats_servers import free_port
from support.waiting import until

ENDS_S_MAX: Final = 60
JOB_S_MAX: Final = 120
PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")
VARIABLE: Final = re.compile(r"\$\((\w+)\)")
"""As the kubelet puts a variable into a command."""
ADDRESS: Final = re.compile(r'(?<=["/])([a-z0-9.-]+):(\d+)(?=")')


@dataclass(frozen=True)
class Replica:
    """One of the pods of a workload."""

    pod: Pod
    ordinal: int = 0

    @property
    def name(self) -> str:
        """As a StatefulSet would call it."""
        return f"{self.pod.owner}-{self.ordinal}"


@dataclass
class Cluster:
    """One machine that plays one."""

    manifests: Rendered
    world: World
    root: Path
    elsewhere: Mapping[str, tuple["Cluster", str]] = field(default_factory=dict)
    """Names from outside, with the cluster and the part that they lead to."""
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes] | ForkedProcess] = field(default_factory=dict)

    def part(self, name: str) -> Pod:
        """The pod of a part that stays."""
        (found,) = (
            pod for pod in self.manifests.pods if pod.name == name and pod.kind != "CronJob"
        )
        return found

    def port(self, replica: Replica, port: int) -> int:
        """The port of this machine that stands for a pod's."""
        return self.ports.setdefault((replica.name, port), free_port())

    def log(self, replica: Replica) -> str:
        """What a pod has written."""
        return (self.root / f"{replica.name}.log").read_text()

    def complete(self, owner: str, **told: str) -> "subprocess.CompletedProcess[str]":
        """Run a pod that ends, with these variables as by `kubectl set env`."""
        replica = Replica(self.manifests.pod(owner))
        folder = self._folder(replica)
        (container,) = replica.pod.spec["containers"]
        return self._run(replica, container, folder, told)

    def claim(self, name: str) -> Path:
        """Where the files of a claim lie that pods share."""
        return self.root / "claims" / name

    async def start(self, name: str, *, replicas: int = 1) -> None:
        """Start the pods of a part, and wait until every probe of the manifest succeeds."""
        started = [Replica(self.part(name), ordinal) for ordinal in range(replicas)]
        for replica in started:
            folder = self._folder(replica)
            (container,) = replica.pod.spec["containers"]
            environment = self._environment(replica, container)
            program, *given = self._command(container, folder)
            with (self.root / f"{replica.name}.log").open("ab") as log:
                self.running[replica.name] = (
                    fork(found, given, stdout=log, stderr=log, environment=environment)
                    if (found := _ours(program))
                    # To start a process takes a millisecond, and nothing else waits for this loop.
                    else subprocess.Popen(  # noqa: ASYNC220
                        [program, *given], env=environment, stdout=log, stderr=log
                    )
                )
        for replica in started:
            await self._ready(replica)

    def stop(self, name: str, ordinal: int = 0) -> int:
        """What the kubelet does; gives the exit code."""
        process = self.running.pop(Replica(self.part(name), ordinal).name)
        process.terminate()
        return process.wait(ENDS_S_MAX)

    def kill(self) -> None:
        """End what is left."""
        for process in self.running.values():
            process.kill()
            process.wait()

    def _folder(self, replica: Replica) -> PodFolder:
        """A pod's files, in which every path and address is one of this machine; its first containers ran."""
        claims = {
            f"{name}-{pod.owner}-{replica.ordinal}": self.claim(f"{name}-{pod.owner}")
            for pod in self.manifests.pods
            for name in pod.claims
        }
        for one in self.manifests.of_kind("PersistentVolumeClaim"):
            claims[one["metadata"]["name"]] = self.claim(one["metadata"]["name"])
        root = self.root / replica.name
        folder = PodFolder.make(
            replica.pod, self.world, root, claims if not replica.ordinal else {}
        )
        for path in folder.move_texts():
            path.write_text(ADDRESS.sub(lambda m: self._address(replica, m), path.read_text()))
        for container in replica.pod.spec.get("initContainers", ()):
            done = self._run(replica, container, folder)
            assert done.returncode == 0, done.stderr
        return folder

    def _address(self, replica: Replica, found: "re.Match[str]") -> str:
        host, port = found[1], int(found[2])
        if host == "0.0.0.0":
            return f"127.0.0.1:{self.port(replica, port)}"
        if host in self.elsewhere:
            cluster, name = self.elsewhere[host]
            return f"127.0.0.1:{cluster.port(Replica(cluster.part(name)), port)}"
        # A service, or one pod of it: "nats", or "nats-1.nats-pods".
        pod = re.fullmatch(r"([a-z-]+)-(\d+)\.\1-pods", host)
        name, ordinal = (pod[1], int(pod[2])) if pod else (host, 0)
        return f"127.0.0.1:{self.port(Replica(self.part(name), ordinal), port)}"

    def _command(self, container: Manifest, folder: PodFolder) -> list[str]:
        """What the container runs, by the programs of this environment."""
        given = [*container.get("command", ["nats-server"]), *container.get("args", ())]
        beside = Path(sys.executable).with_name(given[0])
        program = sys.executable if given[0] == "python" else str(beside)
        return [program, *(folder.moved(one) for one in given[1:])]

    def _environment(self, replica: Replica, container: Manifest) -> dict[str, str]:
        """What the image and the manifest set, and nothing of ours."""
        kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
        return kept | self.world.environment(container, replica.name)

    def _run(
        self,
        replica: Replica,
        container: Manifest,
        folder: PodFolder,
        told: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        environment = self._environment(replica, container) | dict(told or {})
        program, *given = self._command(container, folder)
        given = [VARIABLE.sub(lambda found: environment[found[1]], one) for one in given]
        if found := _ours(program):
            return run_forked(found, *given, environment=environment)
        return subprocess.run(
            [program, *given],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=JOB_S_MAX,
        )

    async def _ready(self, replica: Replica) -> None:
        (container,) = replica.pod.spec["containers"]
        for kind in PROBES:

            async def succeeds(probe: Manifest = container[kind]) -> bool | None:
                assert self.running[replica.name].poll() is None, self.log(replica)
                return True if await self._asked(replica, probe) else None

            try:
                await until(succeeds)
            except AssertionError as error:
                said = f"{replica.name}: {kind}: {error}\n{self.log(replica)}"
                raise AssertionError(said) from None

    async def _asked(self, replica: Replica, probe: Manifest) -> bool:
        if "httpGet" in probe:
            asked = probe["httpGet"]
            port = self.port(replica, replica.pod.ports[asked["port"]])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(connection), contextlib.suppress(OSError):
                connection.request("GET", asked["path"])
                return connection.getresponse().status == 200
            return False
        port = self.port(replica, probe["grpc"]["port"])
        request = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _ours(program: str) -> str | None:
    """What a script beside the interpreter calls, if our package brings it: that is forked."""
    found = entry_points(group="console_scripts", name=Path(program).name)
    return next((one.value for one in found if one.dist and one.dist.name == "countersign"), None)
