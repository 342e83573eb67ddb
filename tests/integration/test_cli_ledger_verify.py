"""`countersign ledger verify` with a policy: on files alone, without a server or a configuration."""

import json
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from support.exports import export_of, lay_out
from support.terminals import Said
from support.vectors import (
    LOG,
    LOG_VKEY,
    PQ_WITNESS,
    PROOF,
    WITNESS,
    WITNESS_LINE,
    WITNESS_TIME,
    WITNESS_VKEY,
)
from tlog.checkpoint import Checkpoint
from tlog.cosignature import CosignatureKind, Cosigner

ENTRIES = [f"entry {i}".encode() for i in range(600)]
POLICY = (
    f"log {LOG_VKEY}\nwitness paper {WITNESS_VKEY}\nwitness pq {PQ_WITNESS.verifier.vkey}\n"
    "group both all paper pq\nquorum both\n"
)


class Offline:
    """Runs the command in this thread: it asks nobody, so there is nothing to wait for."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: object) -> Said:
        self._capsys.readouterr()
        code = exit_code(["ledger", *map(str, arguments)])
        return Said(code, *self._capsys.readouterr())


@pytest.fixture(name="offline")
def _offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Offline:
    """No configuration, no server; an export that two witnesses cosigned, and a receipt that one did."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COUNTERSIGN_CONFIG", raising=False)
    export = export_of(ENTRIES, LOG)
    checkpoint = Checkpoint.parse(export["checkpoint"].decode().partition("\n\n")[0] + "\n")
    for cosigner in (WITNESS, PQ_WITNESS):
        export["checkpoint"] += cosigner.cosign(checkpoint, 1_750_000_000).encode()
    lay_out(tmp_path / "export", export)
    Path("ledger.policy").write_text(POLICY)
    Path("entry.tlog-proof").write_text(PROOF)
    Path("entry.leaf").write_bytes(b"entry 4")
    return Offline(capsys)


@pytest.mark.promise(4)
def test_export_verifies_by_policy(offline: Offline) -> None:
    said = offline.run("verify", "export", "--policy", "ledger.policy")
    assert said.code == 0
    assert said.out == (
        "VERIFIED export: all 600 entries of ledger.example/exchange, in 8 files, are what was signed, "
        "cosigned by paper, pq, last at 2025-06-15T15:06:40Z\n"
    )
    said = offline.run("verify", "export", "--policy", "ledger.policy", "--json")
    (result,) = said.document["results"]
    assert result["verified"] is True
    assert result["cosigned"] == dict.fromkeys(("paper", "pq"), "2025-06-15T15:06:40Z")
    assert (result["origin"], result["size"]) == ("ledger.example/exchange", 600)


@pytest.mark.promise(4)
def test_receipt_without_its_quorum_fails(offline: Offline) -> None:
    said = offline.run("verify", "entry.tlog-proof", "--policy", "ledger.policy")
    assert said.code == 1
    assert said.out == (
        "FAILED: the quorum of witnesses is missing: group both needs 2 of its 2 members and has 1: "
        "without pq (entry.tlog-proof)\n"
    )
    Path("ledger.policy").write_text(POLICY.replace("both all", "both any"))
    said = offline.run("verify", "entry.tlog-proof", "--policy", "ledger.policy")
    assert (said.code, "cosigned by paper" in said.out) == (0, True)


def test_failure_is_told_to_programs(offline: Offline) -> None:
    bundle = Path("export/tile/entries/001")
    bundle.write_bytes(bundle.read_bytes().replace(b"entry 300", b"entry 3OO"))
    said = offline.run("verify", "export", "--policy", "ledger.policy", "--json")
    (result,) = said.document["results"]
    assert (said.code, result["verified"], result["failure"]) == (1, False, "ENTRY_CHANGED")
    assert (result["file"], result["entry"]) == ("tile/entries/001", 300)


@pytest.mark.parametrize("option", ["--since", "--extends"])
def test_checkpoint_that_was_kept_is_compared(offline: Offline, option: str) -> None:
    kept = Path("kept.checkpoint")
    kept.write_bytes(export_of(ENTRIES[:300], LOG)["checkpoint"])
    given = "verify", "export", "--policy", "ledger.policy", option, kept
    said = offline.run(*given)
    assert (said.code, "they extend the 300 of kept.checkpoint" in said.out) == (0, True)
    assert (offline.run(*given, "--json")).document["results"][0]["since"]["size"] == 300
    kept.write_bytes(export_of([b"x", *ENTRIES[1:300]], LOG)["checkpoint"])
    said = offline.run(*given)
    assert (said.code, "another history" in said.out, "(kept.checkpoint)" in said.out) == (1, 1, 1)
    said = offline.run(*given, "--json")
    (result,) = said.document["results"]
    assert (result["failure"], result["file"]) == ("HISTORY_REWRITTEN", "kept.checkpoint")


def test_key_stands_in_place_of_the_policys_logs(offline: Offline) -> None:
    Path("witnesses").write_text(POLICY.partition("\n")[2])
    assert (offline.run("verify", "export", "--policy", "witnesses")).code == 2
    said = offline.run("verify", "export", "--policy", "witnesses", "--key", LOG_VKEY)
    assert said.code == 0


def test_post_quantum_key_of_a_log_is_a_key(offline: Offline) -> None:
    said = offline.run("verify", "export", "--key", PQ_WITNESS.verifier.vkey)
    assert (said.code, "no known key signed the checkpoint" in said.out) == (1, True)
    assert (offline.run("verify", "export", "--key", WITNESS_VKEY)).code == 2


@pytest.mark.promise(4)
def test_post_quantum_key_in_the_trust_roots(offline: Offline, tmp_path: Path) -> None:
    """As good as with --key; a witness's key is none, and the message says which types are."""
    cosigner = Cosigner.from_seed(LOG.name, bytes(32), CosignatureKind.ML_DSA_44)
    note = Path("export/checkpoint").read_text()
    checkpoint = Checkpoint.parse(note.partition("\n\n")[0] + "\n")
    Path("export/checkpoint").write_text(note + cosigner.cosign(checkpoint, WITNESS_TIME))
    client_config(tmp_path, cosigner.verifier.vkey)
    said = offline.run("verify", "export", "--config", "client.toml")
    assert (said.code, said.out.startswith("VERIFIED export: all 600 entries")) == (0, True)
    client_config(tmp_path, WITNESS_VKEY)
    said = offline.run("verify", "export", "--config", "client.toml")
    assert said.code == 2
    assert "a log's key is of type 1 (Ed25519) or 6 (ML-DSA-44)" in " ".join(said.err.split())


def client_config(folder: Path, vkey: str) -> None:
    """Writes one whose trust roots know the log by this key."""
    roots = {"log_verifier_keys": [vkey], "broker_verify_keys": ["A" * 43 + "="]}
    (folder / "roots.json").write_text(json.dumps(roots))
    (folder / "client.toml").write_text(
        'ledger = { address = "localhost:1" }\ntrust_roots = "roots.json"\n'
        'tls = { certificate = "c", key = "k", authority = "a" }\n'
    )


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (POLICY + "quorum both\n", "line 6: there is a quorum line before"),
        (POLICY.replace("all paper", "all peper"), "line 4: peper is not a witness"),
        (POLICY.rpartition("quorum")[0], "no quorum line"),
    ],
)
def test_policy_that_breaks_a_rule_is_a_usage_error(
    offline: Offline, policy: str, says: str
) -> None:
    Path("ledger.policy").write_text(policy)
    said = offline.run("verify", "export", "--policy", "ledger.policy")
    assert (said.code, said.out) == (2, "")
    assert says in " ".join(said.err.split())


def test_receipt_of_the_log_alone_verifies_with_its_key(offline: Offline) -> None:
    Path("entry.tlog-proof").write_text(PROOF.removesuffix(WITNESS_LINE))
    said = offline.run("verify", "entry.tlog-proof", "--key", LOG_VKEY)
    assert (said.code, "cosigned" in said.out) == (0, False)
