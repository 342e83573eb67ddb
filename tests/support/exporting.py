"""Exports of a running ledger, as an oversight body makes them with the command line."""

import asyncio
import json
from pathlib import Path

from countersign.cli.main import exit_code
from support.ledgers import SIGNER
from support.nats_servers import NatsUnderTest


async def export(folder: Path, nats: NatsUnderTest, port: int) -> None:
    """Copies the ledger that listens on the port into the folder."""
    tls = nats.certificates.tls("oversight", "commission")
    config = folder.with_suffix(".toml")
    trust = {"log_verifier_keys": [SIGNER.verifier.vkey], "broker_verify_keys": ["A" * 43 + "="]}
    config.with_suffix(".json").write_text(json.dumps(trust))
    config.write_text(
        f'trust_roots = "{config.with_suffix(".json").name}"\n'
        f'[ledger]\naddress = "127.0.0.1:{port}"\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        f'authority = "{tls.authority}"\n'
    )
    words = ["ledger", "export", str(folder), "--config", str(config)]
    assert await asyncio.to_thread(exit_code, words) == 0
