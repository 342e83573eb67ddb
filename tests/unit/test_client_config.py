"""Who only reads the ledger has a shorter file, and is told when it does not suffice."""

from pathlib import Path

import pytest
from cryptography.x509 import SubjectAlternativeName, UniformResourceIdentifier

from countersign.cli.main import exit_code
from countersign.client import Client, ClientSettings
from countersign.installation.layout import Layout
from countersign.installation.pki import load_certificate
from countersign.installation.ports import Ports
from countersign.installation.prepare import ensure_documents, prepare, systems_run_here
from shared.identity import SpiffeId
from shared.settings import SettingsError

SEARCH = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Of an installation that is ready and does not run."""
    layout = Layout(tmp_path_factory.mktemp("data"))
    registry = ensure_documents(layout)
    prepare(layout, registry, Ports.fixed(systems_run_here(registry)))
    return layout


def test_oversight_has_a_certificate_and_a_file_that_names_the_ledger(layout: Layout) -> None:
    settings = ClientSettings.load(layout.oversight_client)
    assert settings.ledger.address
    assert settings.trust_roots.exists()
    assert settings.tls.key.exists()
    certificate = load_certificate(settings.tls.certificate)
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    (identity,) = names.get_values_for_type(UniformResourceIdentifier)
    assert SpiffeId.parse(identity).kind == "oversight"


async def test_the_client_does_not_search_with_it(layout: Layout) -> None:
    settings = ClientSettings.load(layout.oversight_client)
    with pytest.raises(SettingsError, match=r"^agency and broker missing"):
        async with Client.connect(settings):
            pass


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["search", "list"], "agency and broker missing"),
        (["system", "list"], "agency and broker missing"),
        (["directive", "list"], "policy missing"),
        (["officer", "token", "--officer", "x", "--search-id", SEARCH], "[identity_provider]"),
    ],
)
def test_other_commands_say_what_it_lacks(
    layout: Layout, command: list[str], missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code([*command, "--config", str(layout.oversight_client)]) == 2
    said = capsys.readouterr().err
    assert missing in " ".join(said.split())


def test_an_empty_agency_in_a_file_is_refused(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text('agency = ""\n' + layout.oversight_client.read_text())
    with pytest.raises(SettingsError, match="agency: "):
        ClientSettings.load(path)


def test_without_a_file_one_is_told_who_writes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COUNTERSIGN_CONFIG", raising=False)
    assert exit_code(["ledger", "list"]) == 2
    said = capsys.readouterr().err
    assert "Missing option '--config'" in said
    assert "countersign up" in said
    assert "clients" in said


def test_a_missing_file_is_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["ledger", "list", "--config", str(tmp_path / "absent.toml")]) == 2
    assert capsys.readouterr().err.count("absent.toml") == 1
