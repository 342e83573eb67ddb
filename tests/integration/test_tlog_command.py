"""`python -m tlog`: an auditor's verifier that needs no other code of ours."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlog
from support.exports import export_of, lay_out
from support.vectors import LOG, LOG_VKEY, ORIGIN, PROOF, WITNESS, WITNESS_LINE, WITNESS_VKEY
from tlog.__main__ import main
from tlog.checkpoint import Checkpoint
from tlog.note import write_signature

ENTRIES = [f"entry {i}".encode() for i in range(600)]
POLICY = f"log {LOG_VKEY}\nwitness paper {WITNESS_VKEY}\nquorum paper\n"
TIME = "2025-06-15T15:06:40Z"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """An export with its quorum, a receipt, a policy and a key."""
    export = export_of(ENTRIES, LOG)
    checkpoint = Checkpoint.parse(export["checkpoint"].decode().partition("\n\n")[0] + "\n")
    export["checkpoint"] += WITNESS.cosign(checkpoint, 1_750_000_000).encode()
    lay_out(tmp_path / "export", export)
    (tmp_path / "entry.tlog-proof").write_text(PROOF)
    (tmp_path / "entry.leaf").write_bytes(b"entry 4")
    (tmp_path / "policy").write_text(POLICY)
    return tmp_path


class Verifier:
    """Runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: object) -> tuple[int, str]:
        self._capsys.readouterr()
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, self._capsys.readouterr().out

    def document(self, *arguments: object) -> tuple[int, Any]:
        code, out = self.run(*arguments, "--json")
        return code, json.loads(out)["results"]


@pytest.fixture(name="verifier")
def _verifier(capsys: pytest.CaptureFixture[str]) -> Verifier:
    return Verifier(capsys)


def test_export_and_receipt_verify(verifier: Verifier, folder: Path) -> None:
    paths = folder / "export", folder / "entry.tlog-proof"
    code, out = verifier.run(*paths, "--policy", folder / "policy")
    cosigned = f"cosigned by paper, last at {TIME}\n"
    assert code == 0
    assert out == (
        f"VERIFIED {paths[0]}: all 600 entries of {ORIGIN}, in 8 files, are what was signed, {cosigned}"
        f"VERIFIED {paths[1]}: the entry is number 4 (from 0 on) of the 7 of {ORIGIN} "
        f"that were signed, {cosigned}"
    )
    code, (export, receipt) = verifier.document(*paths, "--policy", folder / "policy")
    assert (export["verified"], export["size"], export["cosigned"]) == (True, 600, {"paper": TIME})
    assert (receipt["log_key"], receipt["size"]) == ("ledger.example/exchange+1df36bb4", 7)


@pytest.mark.promise(4)
def test_it_runs_without_any_other_code_of_ours(folder: Path) -> None:
    """A copy of the package alone, and then a list of what was imported with it."""
    alone = folder / "alone"
    shutil.copytree(Path(tlog.__file__).parent, alone / "tlog")
    program = (
        f"import sys; sys.path.insert(0, {str(alone)!r}); before = set(sys.modules)\n"
        "from tlog.__main__ import main; code = main(sys.argv[1:])\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(found - set(sys.stdlib_module_names))); raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "export", "--policy", "policy"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    verified, imported = done.stdout.splitlines()
    assert verified.startswith("VERIFIED export")
    assert set(imported.split()) <= {
        "tlog",
        *("cryptography", "_openssl"),
        *("nacl", "_sodium", "_cffi_backend"),
    }


@pytest.mark.promise(4)
def test_what_failed_is_named_for_people_and_programs(verifier: Verifier, folder: Path) -> None:
    bundle = folder / "export" / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"entry 300", b"entry 3OO"))
    code, (result,) = verifier.document(folder / "export", "--policy", folder / "policy")
    assert (code, result["verified"]) == (1, False)
    assert (result["failure"], result["file"], result["entry"]) == (
        "ENTRY_CHANGED",
        "tile/entries/001",
        300,
    )
    _, out = verifier.run(folder / "export", "--policy", folder / "policy")
    assert out.startswith(f"FAILED {folder}/export: tile/entries/001: entry 300 was changed")


def test_missing_quorum_and_false_key_are_told_to_programs(
    verifier: Verifier, folder: Path
) -> None:
    checkpoint = folder / "export" / "checkpoint"
    whole = checkpoint.read_text(encoding="utf-8")
    checkpoint.write_text(whole.rpartition("\N{EM DASH}")[0], encoding="utf-8")
    code, (result,) = verifier.document(folder / "export", "--policy", folder / "policy")
    assert (code, result["failure"]) == (1, "QUORUM_MISSING")
    assert "witness paper has not cosigned" in result["says"]
    false = write_signature("witness.example/w1", WITNESS.verifier.key_id, bytes(72))
    checkpoint.write_text(whole + false, encoding="utf-8")
    code, (result,) = verifier.document(folder / "export", "--policy", folder / "policy")
    assert (code, result["key"]) == (1, "witness.example/w1+20324abe")


def test_key_alone_asks_for_no_witness(verifier: Verifier, folder: Path) -> None:
    (folder / "entry.tlog-proof").write_text(PROOF.removesuffix(WITNESS_LINE))
    proof = folder / "entry.tlog-proof"
    assert verifier.run(proof, "--key", LOG_VKEY)[0] == 0
    assert verifier.run(proof, "--policy", folder / "policy")[0] == 1


def test_key_stands_in_place_of_the_policys_logs(verifier: Verifier, folder: Path) -> None:
    (folder / "witnesses").write_text(f"witness w {WITNESS_VKEY}\nquorum w\n")
    policy = "--policy", folder / "witnesses"
    assert verifier.run(folder / "export", *policy)[0] == 2
    assert verifier.run(folder / "export", *policy, "--key", LOG_VKEY)[0] == 0


def test_checkpoint_that_was_kept_is_compared(verifier: Verifier, folder: Path) -> None:
    kept = folder / "kept"
    kept.write_bytes(export_of(ENTRIES[:300], LOG)["checkpoint"])
    given = folder / "export", "--policy", folder / "policy", "--since", kept
    assert verifier.run(*given)[0] == 0
    kept.write_bytes(export_of([b"x", *ENTRIES[1:300]], LOG)["checkpoint"])
    code, (result,) = verifier.document(*given)
    assert (code, result["failure"], result["file"]) == (1, "HISTORY_REWRITTEN", "since")
    kept.unlink()
    assert verifier.document(*given)[1][0]["failure"] == "FILE_MISSING"


def test_file_that_cannot_be_one_of_an_export_is_not_read_whole(
    verifier: Verifier, folder: Path
) -> None:
    with (folder / "export" / "tile" / "0" / "001").open("r+b") as file:
        file.truncate(1 << 40)
    code, (result,) = verifier.document(folder / "export", "--policy", folder / "policy")
    assert (code, result["failure"], result["file"]) == (1, "FILE_MALFORMED", "tile/0/001")
    assert "larger than" in result["says"]


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_told_as_such_and_not_waited_for(
    verifier: Verifier, folder: Path, put: Callable[[Path], None]
) -> None:
    (folder / "export" / "tile" / "0" / "000").unlink()
    put(folder / "export" / "tile" / "0" / "000")
    code, (result,) = verifier.document(folder / "export", "--policy", folder / "policy")
    assert (code, result["failure"], result["file"]) == (1, "FILE_MALFORMED", "tile/0/000")


def test_one_failure_among_several_is_enough(verifier: Verifier, folder: Path) -> None:
    (folder / "other").mkdir()
    code, results = verifier.document(
        folder / "export", folder / "other", folder / "none", "--policy", folder / "policy"
    )
    assert (code, [one["verified"] for one in results]) == (1, [True, False, False])


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("export",),
        ("export", "--key", "not+a+key"),
        ("export", "--policy", "no-such-file"),
        ("export", "--policy", "export"),
        ("export", "--policy", "entry.leaf"),
        ("export", "--nonsense"),
    ],
)
def test_command_that_makes_no_sense_exits_two(
    verifier: Verifier, folder: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert verifier.run(*arguments)[0] == 2
