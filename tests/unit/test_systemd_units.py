"""The units in deploy/systemd: what they run is there, they may do little, and the page names them all."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import broker.__main__ as broker_main
import connector.__main__ as connector_main
import ledger.__main__ as ledger_main
import policy.__main__ as policy_main
from broker.config import BrokerSettings
from connector.config import ConnectorSettings
from countersign.cli.main import exit_code
from countersign.installation import bundled
from countersign.installation.keys import ensure_keys
from countersign.installation.layout import Layout
from countersign.installation.machine import CONFIGURATION, STATE
from countersign.installation.prepare import HEARTBEAT_S, ensure_documents
from ledger.config import LedgerSettings
from policy.config import PolicySettings
from shared.config_check import named_in
from shared.settings import ProcessSettings
from support import systemd_units
from support.sources import ROOT
from support.systemd_units import FOLDER, PROGRAMS, Unit, has_systemd, units

SETTINGS: dict[str, type[ProcessSettings]] = {
    "broker": BrokerSettings,
    "connector": ConnectorSettings,
    "ledger": LedgerSettings,
    "policy": PolicySettings,
}
DOMAIN = "faces.example"
EXPOSURE_MAX = 12
"""In tenths, as systemd-analyze counts; an unconfined service has 96."""
DRAINS_S = {
    "broker": broker_main.GRACE_S,
    "connector": connector_main.GRACE_S,
    "ledger": ledger_main.GRACE_S,
    "policy": policy_main.GRACE_S,
}
OWN = {"SystemCallFilter", "IPAddressDeny", "IPAddressAllow"}
"""In what a process may do, they differ in these; the comments say why."""
NAMES = [one.name for one in units()]

needs_systemd = pytest.mark.skipif(
    not has_systemd() and os.getuid() != 0,
    reason="there is no systemd-analyze here: sudo apt-get install systemd (tools/need_programs.sh)",
)


def asked(folder: Path, layout: Layout, *more: str) -> list[str]:
    """The command that prepares a machine, from what `layout` has."""
    others = folder / "others.json"
    roots = json.loads(layout.trust_roots.read_text()) if layout.trust_roots.exists() else {}
    others.write_text(json.dumps(roots))
    return [
        *("machine", "init", "--trust-domain", DOMAIN, "--host", DOMAIN, "--host", "192.0.2.1"),
        *("--registry", str(layout.registry), "--directives", str(layout.directives)),
        *("--trust-roots", str(others), "--system", "lacris", "--threshold", "0.8"),
        *("--pictures", str(bundled.gallery_folder())),
        *("--dir", str(folder / "etc"), "--state", str(STATE), "--json", *more),
    ]


@pytest.fixture(scope="module", name="layout")
def _layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("parties"))
    ensure_documents(layout)
    return layout


@pytest.fixture(scope="module", name="machine")
def _machine(tmp_path_factory: pytest.TempPathFactory, layout: Layout) -> Path:
    """/etc/countersign of a machine, as the command leaves it and the authority completes it."""
    folder = tmp_path_factory.mktemp("machine")
    assert exit_code(asked(folder, layout)) == 0
    for request in (folder / "etc" / "tls").glob("*.csr"):
        request.with_suffix(".pem").write_text("signed by the authority")
    (folder / "etc" / "tls" / "authority.pem").write_text("the authority")
    return folder / "etc"


def moved(path: Path, machine: Path) -> Path:
    return machine / path.relative_to(CONFIGURATION)


def of_witness(unit: Unit) -> bool:
    """Its files are made by its own program (docs/witness.md): no two are run by the same people."""
    return unit.name.startswith("witness")


@pytest.mark.parametrize("unit", units(), ids=NAMES)
def test_what_a_unit_runs_is_ours_and_reads_what_is_there(unit: Unit, machine: Path) -> None:
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())
    program, *arguments = unit.command
    assert Path(program).parent == PROGRAMS
    name = Path(program).name
    assert name in project["project"]["scripts"] or name == "nats-server"
    assert Path(sys.executable).with_name(name).exists()
    paths = [Path(one) for one in arguments if one.startswith("/")]
    made = [path for path in paths if path.is_relative_to(STATE)]
    assert len(paths) - len(made) == 1
    assert all(path.parent in unit.states for path in made)
    for path in (*paths, *unit.credentials.values()):
        assert path in made or of_witness(unit) or moved(path, machine).exists(), path


@pytest.mark.parametrize("name", SETTINGS)
def test_a_unit_gives_its_process_the_keys_and_folders_of_its_configuration(
    name: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = systemd_units.unit(name)
    told = unit.environment(Path("/credentials"))
    file = machine / f"{name}.toml"
    before = {one.key: one for one in named_in(SETTINGS[name].load(file))}
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    after = {one.key: one for one in named_in(SETTINGS[name].load(file))}
    given = {
        str(moved(path, machine)): f"/credentials/{copy}" for copy, path in unit.credentials.items()
    }
    for key, one in before.items():
        assert str(after[key].path) == given.get(str(one.path), str(one.path)), key
        if one.kept:
            assert any(one.path.is_relative_to(state) for state in unit.states), key
    # Keys that are no credentials are those of certificates, which are renewed while it runs.
    readable = {one.path for one in after.values() if one.path.is_relative_to(machine / "keys")}
    assert not readable
    assert len(told) == len(given)


def test_each_process_has_a_user_who_alone_reads_its_key() -> None:
    users = (FOLDER / "countersign.sysusers").read_text()
    rights = (FOLDER / "countersign.tmpfiles").read_text()
    for unit in units():
        user = unit.one("User")
        assert user == unit.one("Group") == f"countersign-{unit.name.split('-')[0]}"
        assert f"u {user} - " in users
        name = unit.name.split("-")[0]
        assert f"z {CONFIGURATION}/tls/{name}-key.pem 0640 root {user}\n" in rights
    assert f"z {CONFIGURATION}/keys/* 0600 root root\n" in rights


@pytest.mark.parametrize("unit", units(), ids=NAMES)
def test_a_unit_waits_longer_than_its_process_drains(unit: Unit) -> None:
    if unit.one("Type") == "oneshot":
        return
    wait_s = float(unit.one("TimeoutStopSec").removesuffix("s"))
    assert wait_s >= 2 * DRAINS_S.get(unit.name, 0)
    assert unit.one("PartOf") == unit.one("WantedBy") == "countersign.target"
    assert unit.one("Restart") == "on-failure"


def test_units_may_do_the_same_but_for_what_is_named() -> None:
    def confined(unit: Unit) -> list[tuple[str, str]]:
        names = [name for _, name, _ in unit.settings]
        start = names.index("NoNewPrivileges")
        return [
            (name, value)
            for section, name, value in unit.settings[start:]
            if section == "Service" and name not in OWN
        ]

    first, *others = units()
    for other in others:
        assert confined(other) == confined(first), other.name


def verified(folder: Path) -> list[Path]:
    """Copies that name the programs of this environment: those of /opt are not here."""
    made = []
    for path in (*FOLDER.glob("*.service"), *FOLDER.glob("*.target")):
        copy = folder / path.name
        here = str(Path(sys.executable).parent)
        copy.write_text(path.read_text().replace(str(PROGRAMS), here))
        made.append(copy)
    return made


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *verified(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", units(), ids=NAMES)
def test_systemd_finds_little_exposed(unit: Unit, tmp_path: Path) -> None:
    (copy,) = [path for path in verified(tmp_path) if path.name == unit.path.name]
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=yes", "--no-pager"),
            *(f"--threshold={EXPOSURE_MAX}", copy),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"Overall exposure level .*: [01]\.\d", done.stdout)


@needs_systemd
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_users_and_rights_are_made_as_the_page_says(tmp_path: Path, machine: Path) -> None:
    etc = tmp_path / "etc" / "countersign"
    shutil.copytree(machine, etc)
    for path in etc.glob("*/*.pem"):
        path.chmod(0o644)
    for program, file, *more in (
        ("systemd-sysusers", "countersign.sysusers"),
        ("systemd-tmpfiles", "countersign.tmpfiles", "--create"),
    ):
        command = [program, f"--root={tmp_path}", *more, str(FOLDER / file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    users = [line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    groups = {user[0]: int(user[3]) for user in users}
    assert len(set(groups.values())) == 6, "a user for each process"
    lines = (tmp_path / "etc" / "group").read_text().splitlines()
    (readers,) = [one.split(":") for one in lines if one.startswith("countersign-registry:")]
    reading = {name for name in SETTINGS if "registry" in SETTINGS[name].model_fields}
    assert set(readers[3].split(",")) == {f"countersign-{name}" for name in reading}
    registry = (etc / "registry.toml").stat()
    assert (registry.st_uid, registry.st_gid) == (0, int(readers[2]))
    assert registry.st_mode & 0o777 == 0o640
    for path in (etc / "keys").iterdir():
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o600), path
    assert (etc / "keys").stat().st_mode & 0o777 == 0o700
    for name in ("nats", "ledger", "policy", "broker", "connector"):
        key = (etc / "tls" / f"{name}-key.pem").stat()
        assert (key.st_uid, key.st_gid) == (0, groups[f"countersign-{name}"])
        assert key.st_mode & 0o777 == 0o640


def test_the_page_names_every_unit_and_folder() -> None:
    page = (ROOT / "docs" / "operating-one-machine.md").read_text()
    for unit in units():
        assert f"`countersign-{unit.name}`" in page, unit.name
        for state in unit.states:
            assert f"`{state}`" in page, state


def test_run_again_it_keeps_what_is_the_operators(
    machine: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = machine / "broker.toml"
    mine.write_text('default_wait = "PT5M"\n' + mine.read_text())
    key = (machine / "keys" / "note.pem").read_bytes()
    assert exit_code(asked(machine.parent, layout)) == 0
    said = json.loads(capsys.readouterr().out)
    assert str(mine) in said["kept"]
    assert said["wanted"] == []
    assert BrokerSettings.load(mine).default_wait.total_seconds() == 300
    assert (machine / "keys" / "note.pem").read_bytes() == key
    assert not [path for path in machine.iterdir() if path.name.startswith(".")]
    assert (machine / "keys").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in machine.glob("tls/*-key.pem"))
    open_to_all = [machine, machine / "tls", *(machine / "directives").rglob("*")]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in open_to_all)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_registry_is_nobody_elses_to_read_and_stays_its_readers_when_written_anew(
    machine: Path, layout: Layout
) -> None:
    """It may list officers. Written anew without its group, every process would fail at the next start."""
    file = machine / "registry.toml"
    assert file.stat().st_mode & 0o777 == 0o640
    os.chown(file, 0, 4711)
    before = file.stat().st_ino
    assert exit_code(asked(machine.parent, layout)) == 0
    after = file.stat()
    assert after.st_ino != before
    assert (after.st_gid, after.st_mode & 0o777) == (4711, 0o640)


def test_an_alert_can_tell_a_checkpoint_that_stands_still(machine: Path) -> None:
    """Which it does by heartbeats alone (deploy/prometheus), on one machine as on Kubernetes."""
    shipped = [machine / "ledger.toml", *(ROOT / "deploy").rglob("ledger.toml")]
    assert len(shipped) > 2
    for file in shipped:
        assert tomllib.loads(file.read_text()).get("heartbeat_s") == HEARTBEAT_S, file


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--trust-domain", "Faces Example"], "--trust-domain"),
        (["--system", "nowhere"], "the galleries (none)"),
        (["--gallery", "nowhere"], "name one of them with --gallery"),
        (["--host", "münchen.example"], "--host: 'münchen.example' is no name"),
    ],
)
def test_what_cannot_be_meant_is_named_and_nothing_is_written(
    tmp_path: Path, layout: Layout, wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(asked(tmp_path, layout, *wrong)) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize(
    "text", ["[]", '{"systems": null}', '{"log_verifier_keys": 1}', "[" * 9999]
)
def test_what_are_no_trust_roots_are_named_and_nothing_is_written(
    tmp_path: Path, layout: Layout, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = asked(tmp_path, layout)
    (tmp_path / "others.json").write_text(text)
    assert exit_code(command) == 2
    assert "name the file with --trust-roots" in " ".join(capsys.readouterr().err.split())
    assert not [path for path in (tmp_path / "etc").rglob("*") if path.is_file()]


def test_trust_roots_that_know_the_log_by_another_key_are_refused(
    tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """What signs here would be believed by nobody."""
    command = asked(tmp_path, layout)
    elsewhere = ensure_keys(Layout(tmp_path / "elsewhere").keys, ensure_documents(layout))
    (tmp_path / "others.json").write_text(json.dumps(elsewhere))
    assert exit_code(command) == 2
    assert "own key" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "etc" / "trust-roots.json").exists()
