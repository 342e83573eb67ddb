"""`countersign up` where it cannot begin, and what it leaves alone then."""

import dataclasses
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from countersign.cli.invocation import invocation
from countersign.cli.main import exit_code
from countersign.installation.layout import Layout
from countersign.installation.ports import LOOPBACK, Ports, PortTaken
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from countersign.installation.supervisor import alone


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        yield server.getsockname()[1]


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_second_start_changes_nothing_of_what_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path)
    with alone(layout):
        registry = ensure_documents(layout)
        prepare(layout, registry, Ports.fixed(systems_run_here(registry), 9000))
        before = contents(tmp_path)
        assert exit_code(["up", "--dir", str(tmp_path), "--port-base", "9100"]) == 2
        assert "another countersign up" in capsys.readouterr().err
        assert contents(tmp_path) == before


def test_a_taken_port_is_named_before_anything_is_written(
    tmp_path: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(tmp_path / "data")
    assert exit_code(["up", "--dir", str(layout.root), "--port-base", str(taken)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{taken} is taken" in said or f"{taken}, " in said
    assert "use --port-base or --free-ports" in said
    assert not layout.log("nats").parent.exists()
    assert not layout.keys.folder.exists()


def test_the_port_of_a_bus_that_runs_elsewhere_may_be_taken(taken: int) -> None:
    free = Ports.free(["lacris"])
    ports = dataclasses.replace(free, nats=taken)
    ports.must_be_free(bus=False)
    with pytest.raises(PortTaken, match=rf"^port {taken} is taken; use --port-base or"):
        ports.must_be_free(bus=True)


def test_the_command_is_named_as_the_reader_can_call_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / ".venv" / "bin" / "countersign"
    own.parent.mkdir(parents=True)
    own.touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(own.with_name("python")))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert invocation() == ".venv/bin/countersign"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert invocation() == str(own)
    monkeypatch.setenv("PATH", str(own.parent))
    assert invocation() == "countersign"
    own.unlink()
    assert invocation() == "countersign"
