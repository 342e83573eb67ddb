"""A hardware module in software (SoftHSM), with a real token.

Its library is only ever loaded by processes of their own: it reads its configuration once and stays.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
MODULE = next((place for place in PLACES if Path(place).exists()), PLACES[0])
TOKEN = "ledger"  # a label
PIN = "271828"


class SoftHsm:
    """One token in a folder, and the PIN in a file."""

    def __init__(self, folder: Path) -> None:
        tokens = folder / "tokens"
        tokens.mkdir()
        self.configuration = folder / "softhsm2.conf"
        self.configuration.write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self.pin_file = folder / "pin"
        self.pin_file.touch(0o600)
        self.pin_file.write_text(f"{PIN}\n")

    def make_token(self) -> None:
        """Initialises the token."""
        subprocess.run(
            f"softhsm2-util --init-token --free --label {TOKEN} --pin {PIN} --so-pin 314159".split(),
            check=True,
            capture_output=True,
        )

    def make_key(self, label: str, kind: str = "edwards25519") -> bytes:
        """Makes a key pair in the token; gives its public key."""
        made = subprocess.run(
            [sys.executable, __file__, label, kind], check=True, capture_output=True, text=True
        )
        return bytes.fromhex(made.stdout)

    def settings(self, label: str) -> dict[str, str]:
        """Where a key is."""
        pin_file = str(self.pin_file)
        return {"module": MODULE, "token": TOKEN, "label": label, "pin_file": pin_file}

    def key(self, label: str) -> str:
        """The same as it stands in a configuration file."""
        inner = ", ".join(f'{name} = "{value}"' for name, value in self.settings(label).items())
        return f"{{ {inner} }}"


@pytest.fixture(name="soft_hsm")
def _soft_hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """A module with an empty token, for every process that the test starts."""
    folder = tmp_path / "module"
    folder.mkdir()
    one = SoftHsm(folder)
    monkeypatch.setenv("SOFTHSM2_CONF", str(one.configuration))
    one.make_token()
    return one


def _generate(label: str, kind: str) -> bytes:
    import pkcs11
    from asn1crypto.core import PrintableString
    from pkcs11 import Attribute, KeyType, Mechanism
    from pkcs11.util.ec import encode_named_curve_parameters

    edwards = kind == "edwards25519"
    curve = PrintableString(kind).dump() if edwards else encode_named_curve_parameters(kind)
    token = pkcs11.lib(MODULE).get_token(token_label=TOKEN)
    with token.open(user_pin=PIN, rw=True) as session:
        parameters = session.create_domain_parameters(
            KeyType.EC_EDWARDS if edwards else KeyType.EC,
            {Attribute.EC_PARAMS: curve},
            local=True,
        )
        mechanism = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if edwards else Mechanism.EC_KEY_PAIR_GEN
        public, _ = parameters.generate_keypair(mechanism=mechanism, store=True, label=label)
        return bytes(public[Attribute.EC_POINT])[-32:]


if __name__ == "__main__":
    assert os.environ["SOFTHSM2_CONF"]
    sys.stdout.write(_generate(*sys.argv[1:3]).hex())
