"""`countersign ledger` as a person runs it, with a configuration for a ledger under test."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from countersign.cli.main import exit_code
from shared.identity import Kind
from support.ledgers import LAPD, SIGNER
from support.nats_servers import NatsUnderTest

VKEY = SIGNER.verifier.vkey


@dataclass
class Said:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """Runs the command as a person would, on a thread of its own."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self._capsys = capsys

    async def run(self, *arguments: object) -> Said:
        self._capsys.readouterr()
        code = await asyncio.to_thread(exit_code, ["ledger", *map(str, arguments)])
        return Said(code, *self._capsys.readouterr())

    async def read(self, *arguments: object) -> Said:
        return await self.run(*arguments, "--config", self.config)


def write_client(
    folder: Path,
    nats: NatsUnderTest,
    port: int,
    vkey: str = VKEY,
    holder: tuple[Kind, str] = ("agency", LAPD),
    signers: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """The configuration of a system that trusts this key of the ledger, by default of an agency.

    `signers` are those of owners who register in the ledger.
    """
    tls = nats.certificates.tls(*holder)
    trust = {
        "log_verifier_keys": [vkey],
        "broker_verify_keys": ["A" * 43 + "="],
        "registry_signers": signers or {},
    }
    (folder / "trust.json").write_text(json.dumps(trust))
    config = folder / f"client-{holder[1]}.toml"
    agency = f'agency = "{holder[1]}"\n' if holder[0] == "agency" else ""
    nowhere = 'address = "127.0.0.1:1"'
    config.write_text(
        f'{agency}trust_roots = "trust.json"\n'
        f"[broker]\n{nowhere}\n[policy]\n{nowhere}\n"
        f'[ledger]\naddress = "127.0.0.1:{port}"\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        f'authority = "{tls.authority}"\n'
    )
    return config
