"""What `countersign up` writes: keys and documents once, configuration at each start."""

import itertools
import json
import stat
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import PIPE

import pytest

from countersign.client import ClientSettings
from countersign.installation.certificates import TRUST_DOMAIN, ensure_certificates
from countersign.installation.keys import issuer_of
from countersign.installation.layout import Layout
from countersign.installation.parts import stages
from countersign.installation.pki import load_certificate
from countersign.installation.ports import Ports, free_ports, is_free
from countersign.installation.prepare import (
    ExternalBus,
    Installation,
    ensure_documents,
    prepare,
    systems_run_here,
)
from policy.config import PolicySettings
from shared import toml
from shared.identity import SpiffeId
from shared.registry import Registry, TrustRoots

LAPD = "CA0194200"


def installed(root: Path, external: ExternalBus | None = None) -> Installation:
    layout = Layout(root)
    registry = ensure_documents(layout)
    return prepare(layout, registry, Ports.fixed(systems_run_here(registry)), external)


def secrets_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*.pem")
        if path.parent.name == "keys" or path.name.endswith("-key.pem")
    }


def test_a_second_start_uses_the_same_keys_and_documents(tmp_path: Path) -> None:
    installed(tmp_path)
    before = secrets_of(tmp_path)
    roots = Layout(tmp_path).trust_roots.read_bytes()
    Layout(tmp_path).registry.write_text(Layout(tmp_path).registry.read_text() + "# mine\n")
    installed(tmp_path)
    assert secrets_of(tmp_path) == before
    assert Layout(tmp_path).trust_roots.read_bytes() == roots
    assert Layout(tmp_path).registry.read_text().endswith("# mine\n")


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    installed(tmp_path)
    assert secrets_of(tmp_path)
    for name in secrets_of(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name


def test_trust_roots_hold_the_public_halves_of_every_participant(tmp_path: Path) -> None:
    installation = installed(tmp_path)
    roots = TrustRoots.load(installation.layout.trust_roots)
    assert set(roots.systems) == set(installation.registry.systems)
    assert set(roots.identity_providers) == set(installation.registry.agencies)
    assert roots.identity_providers[LAPD].issuer == issuer_of(LAPD)
    assert roots.log_verifier_keys == (installation.layout.keys.ledger_vkey.read_text().strip(),)


def test_a_commercial_service_has_no_connector_here(tmp_path: Path) -> None:
    assert installed(tmp_path).systems == ("lacris",)


def test_each_configuration_names_files_that_exist(tmp_path: Path) -> None:
    layout = installed(tmp_path).layout
    for path in (tmp_path / "config").glob("*.toml"):
        table = tomllib.loads(path.read_text())
        for section in (table["listen"]["tls"], table["bus"]["tls"]):
            for name in section.values():
                assert (path.parent / name).exists(), (path, name)
    policy = PolicySettings.load(layout.config("policy"))
    assert policy.authzen is not None
    assert policy.authzen.tls.certificate.exists()
    assert LAPD in policy.authzen.agencies
    settings = ClientSettings.load(layout.client(LAPD))
    assert settings.agency == LAPD
    assert settings.tls.certificate.exists()
    assert settings.identity_provider is not None
    assert settings.identity_provider.signing_key.exists()


def test_the_ledger_may_be_begun_only_until_it_was_begun(tmp_path: Path) -> None:
    layout = installed(tmp_path).layout
    assert tomllib.loads(layout.config("ledger").read_text())["create_if_missing"] is True
    layout.ledger_begun.touch()
    installed(tmp_path)
    assert tomllib.loads(layout.config("ledger").read_text())["create_if_missing"] is False


def test_an_external_bus_is_used_and_none_is_started(tmp_path: Path) -> None:
    authority = tmp_path / "theirs.pem"
    external = ExternalBus("tls://bus.example:4222", authority)
    installation = installed(tmp_path, external)
    bus = tomllib.loads(installation.layout.config("broker").read_text())["bus"]
    assert bus["servers"] == ["tls://bus.example:4222"]
    assert Path(bus["tls"]["authority"]).name == "theirs.pem"
    assert "nats" not in [part.name for stage in stages(installation) for part in stage]


def test_processes_start_in_the_order_of_what_they_need(tmp_path: Path) -> None:
    names = [[part.name for part in stage] for stage in stages(installed(tmp_path))]
    assert names == [["nats"], ["ledger", "policy"], ["broker"], ["connector-lacris"]]


def test_certificates_are_renewed_before_they_end_and_the_authority_with_them(
    tmp_path: Path,
) -> None:
    layout, start = Layout(tmp_path), datetime(2026, 11, 22, tzinfo=UTC)
    broker = SpiffeId(TRUST_DOMAIN, "service", "broker")
    ends = []
    for days in (0, 30, 70, 720):
        ensure_certificates(layout, {broker: True}, start + timedelta(days=days))
        certificate = load_certificate(layout.tls(broker).certificate)
        certificate.verify_directly_issued_by(load_certificate(layout.authority))
        ends.append((certificate.not_valid_after_utc - start).days)
    assert ends == [90, 90, 160, 810]


def test_a_damaged_directives_folder_is_not_left_half_copied(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (tmp_path / ".directives" / "half").mkdir(parents=True)
    ensure_documents(layout)
    assert (layout.directives / "lapd-2020-11-13" / "rules.cedar").exists()
    assert not (layout.directives / "half").exists()
    assert isinstance(Registry.load(layout.registry), Registry)


def test_free_ports_are_free_and_differ() -> None:
    ports = Ports.free(["lacris", "other"])
    taken = [ports.broker, ports.ledger, ports.policy, ports.nats, *ports.connectors.values()]
    taken += [ports.ledger_http, ports.authzen]
    assert len(set(taken)) == 8
    assert all(is_free(port) for port in taken)


def test_no_port_of_the_row_depends_on_the_witness() -> None:
    without, beside = Ports.fixed(["lacris"], 9000), Ports.fixed(["lacris"], 9000, witness=True)
    assert (without.authzen, beside.authzen, beside.witness) == (9007, 9007, 9006)
    assert without.connectors == beside.connectors == {"lacris": 9005}


def test_a_port_that_another_process_was_given_is_not_given_again() -> None:
    """Though nobody listens on it yet."""
    program = (
        "import itertools, sys; from countersign.installation.ports import free_ports;"
        "print(*itertools.islice(free_ports(), 4000), flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True)
    with other:
        assert other.stdout is not None
        theirs = set(map(int, other.stdout.readline().split()))
        ours = set(itertools.islice(free_ports(), 400))
        other.kill()
    assert (len(theirs), len(ours)) == (4000, 400)
    assert not theirs & ours


@pytest.mark.parametrize(
    "table",
    [
        {"a": "plain", "b": 1, "c": 0.78, "d": True, "e": ["x", "y"]},
        {"quote": 'a "b" \\ c', "umlaut": "Zürich 😀", "control": "tab\tdel\x7f"},
        {"outer": {"inner": {"deep": "1"}, "key": "2"}, "odd key": {"x.y": "3"}, "empty": {}},
    ],
)
def test_what_is_written_as_toml_reads_back(table: toml.Table) -> None:
    assert tomllib.loads(toml.render(table, "title")) == table


def test_the_nats_configuration_is_json_with_no_password(tmp_path: Path) -> None:
    layout = installed(tmp_path).layout
    text = layout.nats_config.read_text()
    config = json.loads(text.split("\n", 1)[1])
    assert config["tls"]["verify_and_map"]
    assert config["jetstream"]["sync_interval"] == "always"
    assert "password" not in text
