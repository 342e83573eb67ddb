"""`countersign up`: every part as a real process, and none left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from countersign.cli.main import exit_code
from countersign.installation.layout import Layout
from countersign.installation.parts import stages
from countersign.installation.ports import Ports, address
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from countersign.installation.supervisor import STOP_GRACE_S
from support.installations import ProcessUnderTest, bring_embeddings
from support.waiting import WAIT_S_MAX

READY_LINE = "Everything runs."
START_TIMEOUT_S = 200.0


class Up:
    """`countersign up` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.layout = Layout(folder / "data")
        bring_embeddings(self.layout)
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
    tmp_path: Path, up: Up, capsys: pytest.CaptureFixture[str]
) -> None:
    """And killed, it leaves no process behind. In one test, because each start is one of seven processes."""
    assert exit_code(["up", "--dir", str(up.layout.root)]) == 2, "only one may run in a directory"
    assert "another countersign up" in capsys.readouterr().err
    key = up.layout.keys.ledger_vkey.read_text()
    stops_in_order(up)
    stops_with_one_death_on_a_bus_of_somebody_else(tmp_path)
    leaves_no_process_behind_when_killed(tmp_path)
    assert up.layout.keys.ledger_vkey.read_text() == key
    for path in up.layout.ledger.parent.glob("ledger.sqlite3*"):
        if path.is_file():
            path.unlink()
    without_ledger = Up(tmp_path)
    assert without_ledger.wait() == 1
    assert "ledger ended by itself" in without_ledger.errors


def stops_in_order(up: Up) -> None:
    family = up.family
    assert len(family) >= 6, "NATS, ledger, policy, broker, connector and the connector's worker"
    up.process.send_signal(signal.SIGINT)
    assert up.wait() == 0
    assert all_end(family)
    stopping = [line.split()[0] for line in up.errors.splitlines() if "stopping" in line]
    assert stopping == ["connector-lacris", "broker", "policy", "ledger", "nats"]


def stops_with_one_death_on_a_bus_of_somebody_else(folder: Path) -> None:
    """All that is ours, and the log of the dead is named: the bus goes on."""
    layout = Layout(folder / "data")
    registry = ensure_documents(layout)
    ports = Ports.free(systems_run_here(registry))
    nats = ProcessUnderTest(stages(prepare(layout, registry, ports))[0][0])
    nats.start()
    up = Up(folder, "--nats-url", f"tls://{address(ports.nats)}")
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


def leaves_no_process_behind_when_killed(folder: Path) -> None:
    again = Up(folder)
    try:
        again.wait_until_ready()
        family = again.family
        assert len(family) >= 6
    finally:
        again.process.kill()
        again.wait()
    assert all_end(family), "killed, it leaves no process behind"
