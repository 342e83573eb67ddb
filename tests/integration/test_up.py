"""`countersign up`: every part as a real process, and none left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from countersign.installation.layout import Layout
from countersign.installation.parts import GrpcDoor, stages
from countersign.installation.ports import Ports, address
from countersign.installation.prepare import (
    PROBER,
    ensure_documents,
    prepare,
    systems_run_here,
)
from countersign.installation.supervisor import STOP_GRACE_S
from support.installations import InstallationUnderTest, ProcessUnderTest
from support.waiting import WAIT_S_MAX

READY_LINE = "Everything runs."
START_TIMEOUT_S = 200.0


class Up:
    """`countersign up` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.layout = Layout(folder / "data")
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("countersign"),
                    "up",
                    "--dir",
                    self.layout.root,
                    "--free-ports",
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                text=True,
            )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        # Ends the wait for a line that does not come.
        watchdog = threading.Timer(START_TIMEOUT_S, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                if READY_LINE in line:
                    return
        finally:
            watchdog.cancel()
        raise AssertionError(f"it did not start:\n{self.errors}")

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def family(self) -> list[psutil.Process]:
        """The processes that it started, and those that they started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self) -> int:
        assert self.process.stdout is not None
        code = self.process.wait(5 * STOP_GRACE_S)
        self.process.stdout.close()
        return code


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path)
    family: list[psutil.Process] = []
    try:
        started.wait_until_ready()
        family = started.family
        yield started
    finally:
        started.process.kill()
        started.wait()
        for process in family:
            if process.is_running():
                process.kill()


def all_end(family: list[psutil.Process], timeout_s: float = WAIT_S_MAX) -> bool:
    _, alive = psutil.wait_procs(family, timeout=timeout_s)
    return not alive


def test_it_stops_in_order_starts_again_on_its_data_and_never_on_an_empty_ledger(
    tmp_path: Path, up: Up
) -> None:
    """And killed, it leaves no process behind. In one test, because each start is one of seven processes."""
    family = up.family
    assert len(family) >= 6, "NATS, ledger, policy, broker, connector and the connector's worker"
    second = subprocess.run(
        [Path(sys.executable).with_name("countersign"), "up", "--dir", up.layout.root],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert second.returncode == 2, "only one may run in a directory"
    assert "another countersign up" in second.stderr
    key = up.layout.keys.ledger_vkey.read_text()
    up.process.send_signal(signal.SIGINT)
    assert up.wait() == 0
    assert all_end(family)
    stopping = [line.split()[0] for line in up.errors.splitlines() if "stopping" in line]
    assert stopping == ["connector-lacris", "broker", "policy", "ledger", "nats"]

    again = Up(tmp_path)
    try:
        again.wait_until_ready()
        family = again.family
        assert len(family) >= 6
    finally:
        again.process.kill()
        again.wait()
    assert all_end(family), "killed, it leaves no process behind"
    assert up.layout.keys.ledger_vkey.read_text() == key

    for path in up.layout.ledger.parent.glob("ledger.sqlite3*"):
        if path.is_file():
            path.unlink()
    without_ledger = Up(tmp_path)
    assert without_ledger.wait() == 1
    assert "ledger ended by itself" in without_ledger.errors


def test_on_a_bus_of_somebody_else_one_death_stops_all_and_names_the_log(tmp_path: Path) -> None:
    """All that is ours: the bus goes on."""
    layout = Layout(tmp_path / "data")
    registry = ensure_documents(layout)
    ports = Ports.free(systems_run_here(registry))
    nats = ProcessUnderTest(stages(prepare(layout, registry, ports))[0][0])
    nats.start()
    up = Up(tmp_path, "--nats-url", f"tls://{address(ports.nats)}")
    try:
        up.wait_until_ready()
        assert "nats" not in up.errors
        family = up.family
        assert len(family) >= 5
        policy = next(one for one in family if str(up.layout.config("policy")) in one.cmdline())
        policy.kill()
        assert up.wait() == 1
        assert all_end(family)
        assert "policy was ended by SIGKILL" in up.errors
        assert str(up.layout.log("policy")) in up.errors.replace("\n", "")
        assert not nats.has_ended
    finally:
        up.process.kill()
        up.process.wait()
        nats.kill()


SERVICES = {
    "broker": "countersign.broker.v1.BrokerService",
    "ledger": "countersign.ledger.v1.LedgerService",
    "policy": "countersign.policy.v1.PolicyService",
    "connector-lacris": "grpc.health.v1.Health",
}


@pytest.mark.parametrize(("process", "service"), SERVICES.items())
def test_every_port_has_health_and_reflection(
    installation: InstallationUnderTest, process: str, service: str
) -> None:
    part = installation.processes[process].part
    assert part.door.answers()
    assert service in reflected(part.port, installation)


def reflected(port: int, installation: InstallationUnderTest) -> set[str]:
    tls = installation.layout.tls(PROBER)
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        responses = list(stub.ServerReflectionInfo(iter([request]), timeout=WAIT_S_MAX))
    return {one.name for one in responses[0].list_services_response.service}


def test_no_port_answers_without_a_certificate(installation: InstallationUnderTest) -> None:
    authority = installation.layout.authority.read_bytes()
    for name in SERVICES:
        port = installation.processes[name].part.port
        with grpc.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(authority)
        ) as channel:
            ready = grpc.channel_ready_future(channel)
            with pytest.raises(grpc.FutureTimeoutError):
                ready.result(timeout=1)
            ready.cancel()


def test_a_killed_process_is_ready_again_on_its_port(installation: InstallationUnderTest) -> None:
    policy = installation.processes["policy"]
    policy.kill()
    door = policy.part.door
    assert isinstance(door, GrpcDoor)
    assert not door.answers()
    policy.start()
    assert door.answers()
