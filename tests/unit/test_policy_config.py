"""What the policy service's configuration refuses of AuthZEN."""

from pathlib import Path

import pytest

from policy.config import PolicySettings
from shared.settings import SettingsError

TLS = 'tls = { certificate = "c.pem", key = "k.pem", authority = "a.pem" }\n'
BEFORE = f"""
trust_domain = "countersign.test"
registry = "registry.toml"
directives = "directives"
[listen]
address = "127.0.0.1:7442"
{TLS}
[bus]
servers = ["tls://127.0.0.1:7443"]
{TLS}
"""


def load(folder: Path, section: str) -> PolicySettings:
    file = folder / "policy.toml"
    file.write_text(BEFORE + section)
    return PolicySettings.load(file)


def test_authzen_is_optional_and_its_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "").authzen is None
    found = load(tmp_path, f'[authzen]\naddress = "127.0.0.1:0"\n{TLS}').authzen
    assert found is not None
    assert found.agencies == ()
    assert found.tls.certificate == tmp_path / "c.pem"
    served = 'address = "0.0.0.0:8443"\nurl = "https://policy.example.gov:8443"\n'
    assert load(tmp_path, f"[authzen]\n{served}{TLS}").authzen is not None


@pytest.mark.parametrize(
    "wrong",
    [
        'address = "0.0.0.0:8443"',
        'address = ":8443"',
        'address = "[::]:8443"',
        'address = "127.0.0.1:8443"\nurl = "http://policy.example.gov"',
        'address = "127.0.0.1:8443"\nurl = "https://policy.example.gov/"',
        'address = "127.0.0.1:8443"\nurl = "https://policy.example.gov?a"',
        'address = "127.0.0.1:8443"\nagencies = ["LAPD"]',
        'address = "127.0.0.1:8443"\nanybody = true',
    ],
)
def test_what_nobody_could_mean_stops_the_start(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(SettingsError, match="authzen"):
        load(tmp_path, f"[authzen]\n{wrong}\n{TLS}")
