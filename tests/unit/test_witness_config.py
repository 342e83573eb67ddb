"""The witness's configuration: the one that its page shows works, and what is wrong is named."""

import re
from pathlib import Path

import pytest

from shared.settings import SettingsError
from support.sources import ROOT
from support.witnesses import LOG_SIGNER, ORIGIN
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.note import Signer
from witness.config import HttpSettings, WitnessSettings

PAGE = (ROOT / "docs" / "witness.md").read_text()
SHOWN = next(
    block
    for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    if "[logs.exchange]" in block
)
VKEY = LOG_SIGNER.verifier.vkey
WORKS = SHOWN.replace("<the ledger's verifier key, the whole line>", VKEY)


def load(folder: Path, text: str) -> WitnessSettings:
    path = folder / "witness.toml"
    path.write_text(text)
    return WitnessSettings.load(path)


def test_configuration_on_the_page_works(tmp_path: Path) -> None:
    settings = load(tmp_path, WORKS)
    assert settings.logs["exchange"].origin == ORIGIN
    assert settings.database == tmp_path / "state" / "witness.sqlite3"
    assert settings.listen.host_and_port == ("127.0.0.1", 8640)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (":8640", (None, 8640)),
        ("[::1]:1", ("::1", 1)),
        ("witness.example:0", ("witness.example", 0)),
    ],
)
def test_addresses(address: str, parts: tuple[str | None, int]) -> None:
    assert HttpSettings(address=address).host_and_port == parts


TWO_LOGS = f'[logs.again]\nkeys = ["{VKEY}"]\n'
STRANGER = Signer.from_seed("stranger.example/log", bytes(32)).verifier.vkey


COSIGNERS = {kind: Cosigner.from_seed(ORIGIN, bytes(32), kind) for kind in CosignatureKind}
PQ_VKEY = COSIGNERS[CosignatureKind.ML_DSA_44].verifier.vkey
WITNESS_VKEY = COSIGNERS[CosignatureKind.ED25519].verifier.vkey


def test_log_may_be_known_by_a_key_of_either_type(tmp_path: Path) -> None:
    settings = load(tmp_path, WORKS.replace(f'"{VKEY}"', f'"{VKEY}", "{PQ_VKEY}"'))
    assert [one.vkey for one in settings.logs["exchange"].verifiers] == [VKEY, PQ_VKEY]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WORKS + TWO_LOGS, "is there twice"),
        (WORKS.replace(f'"{VKEY}"', f'"{VKEY}", "{STRANGER}"'), "different logs"),
        (WORKS.replace(f'"{VKEY}"', ""), "logs.exchange.keys"),
        (WORKS.replace(VKEY, WITNESS_VKEY), "not of type 4"),
        (WORKS.replace("[logs.exchange]", "[other]"), "logs"),
        (WORKS.replace("8640", "everywhere"), "listen.address"),
        (WORKS.replace("[listen]", '[listen]\nprefix = "no-slash"'), "listen.prefix"),
        (WORKS.replace("[listen]", '[listen]\nkey = "tls.pem"'), "together"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load(tmp_path, text)
