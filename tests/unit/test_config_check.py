"""A configuration is looked at as its process would, and nothing is started or changed."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import broker.config_checks
import connector.config_checks
import countersign.client.config_checks
import ledger.config_checks
import policy.config_checks
import witness.config_checks
from broker.config import BrokerSettings
from connector.config import ConnectorSettings
from countersign.cli.config import PROCESSES, TELLING, whose
from countersign.cli.main import exit_code
from countersign.client.config import ClientSettings
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.layout import Layout
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from shared import toml
from shared.clock import Clock, SystemClock
from shared.config_check import Checks, look, named_in
from shared.config_show import in_force
from shared.identity import SpiffeId
from shared.settings import ProcessSettings, SettingsError
from shared.settings_problems import Problem
from support.clocks import ClockThatStandsStill
from witness.config import WitnessSettings

LAPD = "CA0194200"


@dataclass(frozen=True)
class Process:
    settings: type[ProcessSettings]
    checks: Callable[[Any], Checks]

    def look(self, file: Path, clock: Clock | None = None) -> tuple[Problem, ...]:
        return look(self.settings, file, self.checks, clock or SystemClock()).problems


OF: dict[str, Process] = {
    "broker": Process(BrokerSettings, broker.config_checks.checks),
    "policy": Process(PolicySettings, policy.config_checks.checks),
    "ledger": Process(LedgerSettings, ledger.config_checks.checks),
    "connector": Process(ConnectorSettings, connector.config_checks.checks),
    "witness": Process(WitnessSettings, witness.config_checks.checks),
    "client": Process(ClientSettings, countersign.client.config_checks.checks),
}


@pytest.fixture(scope="module", name="layout")
def _layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Of an installation that is ready and does not run."""
    layout = Layout(tmp_path_factory.mktemp("data"))
    registry = ensure_documents(layout)
    prepare(layout, registry, Ports.fixed(systems_run_here(registry), witness=True))
    return layout


def file_of(layout: Layout, process: str) -> Path:
    if process == "client":
        return layout.client(LAPD)
    return layout.config("connector-lacris" if process == "connector" else process)


def changed(file: Path, folder: Path, **changes: Any) -> Path:
    """The same with other values, from a folder beside it, by dotted keys with `__` for the dot."""
    table: Any = tomllib.loads(file.read_text())
    for key, value in changes.items():
        inner = table
        *sections, last = key.split("__")
        for section in sections:
            inner = inner.setdefault(section, {})
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    copy = file.with_name(f"{folder.name}-{file.name}")
    copy.write_text(toml.render(table, "changed"))
    return copy


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_process_has_its_checks_and_a_key_that_tells_it() -> None:
    assert set(OF) == set(PROCESSES) == set(TELLING.values())


@pytest.mark.parametrize("process", OF)
def test_what_up_writes_is_usable_and_looking_changes_nothing(layout: Layout, process: str) -> None:
    before = everything_below(layout.root)
    file = file_of(layout, process)
    assert OF[process].look(file) == ()
    assert whose(file) == process
    assert everything_below(layout.root) == before


@pytest.mark.parametrize("process", OF)
def test_an_unknown_key_stops_each_process_and_names_itself(
    layout: Layout, tmp_path: Path, process: str
) -> None:
    wrong = changed(file_of(layout, process), tmp_path, tls__keys="x", colour="blue")
    with pytest.raises(SettingsError) as refused:
        OF[process].settings.load(wrong)
    assert str(wrong) in str(refused.value)
    assert "\n  colour: there is no such key; remove it, or correct its name" in str(refused.value)
    assert "tls" in str(refused.value)


@pytest.mark.parametrize("process", OF)
def test_every_path_that_is_read_must_be_there(
    layout: Layout, tmp_path: Path, process: str
) -> None:
    """Whatever the service does with it later: no path of a configuration goes unlooked at."""
    settings = OF[process].settings
    file = file_of(layout, process)
    read = [one for one in named_in(settings.load(file)) if not one.kept]
    assert len(read) >= 1
    table: Any = tomllib.loads(file.read_text())
    for one in read:
        inner = table
        for part in one.keys[:-1]:
            inner = inner[part]
        inner[one.keys[-1]] = str(tmp_path / "absent")
    wrong = file.with_name(f"{tmp_path.name}-{file.name}")
    wrong.write_text(toml.render(table, "nothing is there"))
    found = {one.key: one for one in OF[process].look(wrong)}
    for one in read:
        assert "absent: No such file" in found[one.key].wrong
        assert found[one.key].do == "put it there, or name another path"


Damaged = dict[str, tuple[str, dict[str, Any], str, str]]
"""By name: process, changes, the key that is to be named, and what is to be said of it."""


def damaged_files(layout: Layout, text: Path, empty: Path) -> Damaged:
    other = layout.tls(SpiffeId(TRUST_DOMAIN, "service", "ledger"))
    return {
        "key of another certificate": (
            "broker",
            {"listen__tls__key": str(other.key)},
            "listen.tls",
            "key",
        ),
        "authority that is none": (
            "policy",
            {"bus__tls__authority": str(text)},
            "bus.tls",
            str(text),
        ),
        "certificate of another process": (
            "broker",
            {"bus__tls__certificate": str(other.certificate), "bus__tls__key": str(other.key)},
            "bus.tls.certificate",
            "spiffe://countersign.test/service/broker",
        ),
        "trust roots that are none": (
            "broker",
            {"trust_roots": str(text)},
            "trust_roots",
            str(text),
        ),
        "registry that is none": ("ledger", {"registry": str(text)}, "registry", str(text)),
        "key of another kind": (
            "broker",
            {"order_signing_key": str(layout.keys.sealing("lacris"))},
            "order_signing_key",
            "Ed25519",
        ),
        # Told to begin one, somebody tired would.
        "log that was there": (
            "ledger",
            {"create_if_missing": False, "last_signed": str(text)},
            "database",
            "restore it",
        ),
        "log key that is none": (
            "ledger",
            {"signing_keys": [str(text)]},
            "signing_keys",
            str(text),
        ),
    }


def damaged_meanings(layout: Layout, text: Path, empty: Path) -> Damaged:
    keys = layout.keys
    return {
        "log that is not there": (
            "ledger",
            {"create_if_missing": False},
            "database",
            "countersign-ledger begin",
        ),
        "folder that cannot be made": (
            "ledger",
            {"last_signed": str(text / "last-signed")},
            "last_signed",
            "nothing can be made",
        ),
        "witnesses' policy of another log": (
            "ledger",
            {"witnessing__policy": str(text)},
            "witnessing",
            str(text),
        ),
        "words that are none": ("policy", {"vocabulary": str(empty)}, "vocabulary", str(empty)),
        "agency that nobody knows": (
            "policy",
            {"authzen__agencies": ["CA9999999"]},
            "authzen",
            "CA9999999",
        ),
        "directives that are none": (
            "connector",
            {"directives": str(empty)},
            "directives",
            str(empty),
        ),
        "gallery of another system": (
            "connector",
            {"gallery": "nowhere"},
            "directives",
            "no gallery",
        ),
        "threshold that is no number": (
            "connector",
            {"scale__threshold": float("nan")},
            "scale.threshold",
            "finite",
        ),
        "keys that the trust roots do not know": (
            "connector",
            {"answer_signing_key": str(keys.broker_order)},
            "trust_roots",
            "other keys",
        ),
        "witness key that is none": ("witness", {"keys": [str(text)]}, "keys.0", str(text)),
        "store that is not there": ("witness", {"create_if_missing": False}, "database", "begin"),
        "certificate of another agency": ("client", {"agency": "CA0190000"}, "agency", LAPD),
    }


def damaged_witnesses(text: Path) -> Damaged:
    none = text.with_name("none.policy")
    none.write_text("quorum none\n")
    return {
        "witnesses that are none": ("connector", {"witnesses": str(text)}, "witnesses", str(text)),
        "witnesses of whom none is demanded": (
            "connector",
            {"witnesses": str(none)},
            "witnesses",
            "demands none",
        ),
    }


def test_what_a_start_would_fail_with_is_named_by_its_key(layout: Layout, tmp_path: Path) -> None:
    text, empty = tmp_path / "text", tmp_path / "empty"
    text.write_text("nothing of the kind")
    empty.mkdir()
    damaged = damaged_files(layout, text, empty) | damaged_meanings(layout, text, empty)
    damaged |= damaged_witnesses(text)
    for name, (process, changes, key, said) in damaged.items():
        found = OF[process].look(changed(file_of(layout, process), tmp_path, **changes))
        assert [one.key for one in found] == [key], (name, found)
        assert said in str(found[0]), (name, found)
        assert found[0].do, name


def test_a_lapsed_certificate_is_named(layout: Layout) -> None:
    later = ClockThatStandsStill(SystemClock().now() + timedelta(days=200))
    found = OF["broker"].look(file_of(layout, "broker"), later)
    assert {one.key for one in found} == {"listen.tls", "bus.tls"}
    assert all("lapsed on" in one.wrong for one in found)


def test_what_is_in_force_bears_its_source_and_reads_back(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COUNTERSIGN_BROKER_SERVICE_HOST", "10.0.0.1")
    for process, one in OF.items():
        file = file_of(layout, process)
        shown = in_force(one.settings, file)
        again = tmp_path / f"{process}.toml"
        again.write_text("".join(f"{setting.line()}\n" for setting in shown))
        assert one.settings.load(again) == one.settings.load(file), process
        assert {setting.source for setting in shown} <= {"file", "default"}
    monkeypatch.setenv("COUNTERSIGN_ANSWERS_KEPT", "PT2H")
    monkeypatch.setenv("COUNTERSIGN_LIMITS", '{"officer_in_flight_max": 7}')
    servers = ["tls://somebody:password@bus.example:4222", "tls://somebody:pa/ss@word@bus.example"]
    monkeypatch.setenv("COUNTERSIGN_BUS__SERVERS", json.dumps(servers))
    found = {one.key: one for one in in_force(BrokerSettings, file_of(layout, "broker"))}
    assert (found["answers_kept"].value, found["answers_kept"].source) == (
        "PT2H",
        "COUNTERSIGN_ANSWERS_KEPT",
    )
    assert found["limits.officer_in_flight_max"].source == "COUNTERSIGN_LIMITS"
    assert found["limits.officer_searches_burst"].source == "file"
    assert found["default_wait"].source == "default"
    hidden = ["tls://hidden@bus.example:4222", "tls://hidden@bus.example"]
    assert found["bus.servers"].value == hidden


def test_no_secret_is_shown(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [path.read_text().split("-----")[2].strip() for path in layout.root.rglob("*-key.pem")]
    keys.append(layout.keys.identity_provider(LAPD).read_text().split("-----")[2].strip())
    for command in ("check", "show"):
        for more in ([], ["--json"]):
            assert exit_code(["config", command, str(layout.client(LAPD)), *more]) == 0
    said = capsys.readouterr()
    assert str(layout.keys.identity_provider(LAPD).name) in said.out
    assert not [key for key in keys if key in said.out + said.err]


def test_the_command_tells_people_and_programs(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = changed(layout.client(LAPD), tmp_path, trust_roots="absent.json", brokers=1)
    assert exit_code(["config", "check", str(wrong), "--for", "client"]) == 1
    assert "brokers: there is no such key" in capsys.readouterr().err
    wrong = changed(layout.client(LAPD), tmp_path, trust_roots="absent.json")
    assert exit_code(["config", "check", str(wrong), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["process"], said["usable"]) == ("client", False)
    assert [one["key"] for one in said["problems"]] == ["trust_roots"]
    assert exit_code(["config", "show", str(tmp_path / "absent.toml"), "--for", "client"]) == 1
    assert "No such file" in capsys.readouterr().err
    assert exit_code(["config", "check", str(tmp_path / "absent.toml")]) == 2
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "other.toml").write_text("colour = 'red'\n")
    assert exit_code(["config", "check", str(tmp_path / "other.toml")]) == 2
    assert "--for" in capsys.readouterr().err
    (tmp_path / "other.toml").write_text("colour = red\n")
    assert exit_code(["config", "check", str(tmp_path / "other.toml")]) == 2
    assert "TOML" in capsys.readouterr().err


def test_the_program_itself_is_asked(layout: Layout) -> None:
    """With an environment in which it would start."""
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("countersign"), "config", "check"),
            *(file_of(layout, "policy"), "--json"),
        ],
        env={**os.environ, "COUNTERSIGN_LISTEN__ADRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["key"] == "listen.adress"
    assert "did you mean address?" in problem["do"]
    assert "COUNTERSIGN_LISTEN__ADRESS" in problem["do"]
