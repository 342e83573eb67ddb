"""What jobs and pods of an installation run before the services: logs, stores and keys put in place."""

import subprocess
import sys
from pathlib import Path

from ledger.key_provider import FileKeyProvider
from support.ledgers import run_program, write_settings
from support.nats_servers import NatsUnderTest
from support.witnesses import LOG_SIGNER, write_witness


def new_witness(folder: Path) -> Path:
    config = write_witness(folder, LOG_SIGNER.vkey)
    config.write_text(config.read_text().replace("create_if_missing = true\n", ""))
    return config


def begin_witness(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "witness", "begin", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_log_is_begun_once(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    config = write_settings(tmp_path, nats_server)
    first = run_program("begin", config)
    assert (first.returncode, first.stdout[:6]) == (0, "BEGUN:")
    before = (tmp_path / "ledger.sqlite").read_bytes()
    second = run_program("begin", config)
    assert (second.returncode, second.stdout[:6]) == (0, "THERE:")
    assert (tmp_path / "ledger.sqlite").read_bytes() == before


def test_a_damaged_memory_of_what_was_signed_begins_nothing(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    (tmp_path / "ledger.sqlite.last-signed").write_bytes(b"x" * 8192)
    done = run_program("begin", config)
    assert (done.returncode, done.stderr[:7]) == (1, "FAILED:")
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_log_without_its_key_is_not_begun(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    config = write_settings(tmp_path, nats_server)
    (tmp_path / "note.pem").unlink()
    done = run_program("begin", config)
    assert done.returncode == 2
    assert "note.pem" in done.stderr
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_witness_begins_once(tmp_path: Path) -> None:
    config = new_witness(tmp_path)
    first = begin_witness(config)
    assert (first.returncode, first.stdout[:6]) == (0, "BEGUN:")
    assert begin_witness(config).stdout[:6] == "THERE:"


def test_a_damaged_store_is_no_new_witness(tmp_path: Path) -> None:
    config = new_witness(tmp_path)
    assert begin_witness(config).returncode == 0
    (store,) = tmp_path.glob("*.sqlite*")
    store.write_bytes(b"damaged" * 1000)
    assert begin_witness(config).returncode == 2


def test_keys_are_placed_for_the_ledger_alone(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    config, mounted = write_settings(tmp_path, nats_server), tmp_path / "mounted"
    mounted.mkdir(mode=0o755)
    for version in (1, 2):
        (mounted / f"v{version}.key").write_text(f"{version}" * 64 + "\n")
    (mounted / "v3.key.old").write_text("no key of ours")
    done = run_program("place-opening-keys", config, mounted)
    assert (done.returncode, done.stdout[:10]) == (0, "PLACED: 2 "), done.stderr
    placed = FileKeyProvider(tmp_path / "ledger.sqlite.opening-keys")
    assert placed.versions() == [1, 2]
    (mounted / "v1.key").unlink()  # destroyed by a rotation elsewhere
    assert run_program("place-opening-keys", config, mounted).returncode == 0
    assert FileKeyProvider(tmp_path / "ledger.sqlite.opening-keys").versions() == [2]


def test_a_damaged_key_is_not_placed(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    config, mounted = write_settings(tmp_path, nats_server), tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "v1.key").write_text("half a key")
    done = run_program("place-opening-keys", config, mounted)
    assert (done.returncode, done.stderr[:7]) == (1, "FAILED:")
    assert not (tmp_path / "ledger.sqlite.opening-keys").exists()
