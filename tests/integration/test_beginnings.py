"""What jobs and pods of an installation run before the services: logs, stores and keys put in place."""

import os
import subprocess
from pathlib import Path

import pytest

from ledger.config import LedgerSettings
from ledger.key_provider import FileKeyProvider
from ledger.openings import opened_keyring, opened_openings
from shared.errors import NotReady
from support.forked import fork, run_forked
from support.ledgers import new_log, run_program, write_settings
from support.nats_servers import NatsUnderTest
from support.waiting import WAIT_S_MAX
from support.witnesses import LOG_SIGNER, write_witness


def new_witness(folder: Path) -> Path:
    config = write_witness(folder, LOG_SIGNER.vkey)
    config.write_text(config.read_text().replace("create_if_missing = true\n", ""))
    return config


def begin_witness(config: Path) -> subprocess.CompletedProcess[str]:
    return run_forked("witness", "begin", config)


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


def test_keys_go_from_replica_to_replica_through_a_pipe(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    configs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        configs.append(write_settings(tmp_path / name, nats_server))
    folders = [LedgerSettings.load(config).provider_keys for config in configs]
    FileKeyProvider.create(folders[0]).rotate()
    revealed = run_program("reveal-opening-keys", configs[0])
    assert revealed.returncode == 0, revealed.stderr
    done = run_program("place-opening-keys", configs[1], "-", given=revealed.stdout)
    assert (done.returncode, done.stdout[:10]) == (0, "PLACED: 2 "), done.stderr
    assert kept_in(folders[1]) == kept_in(folders[0])
    # A pipe that broke, anywhere, and one into which nothing came: what is there stays.
    for cut in (0, 20, len(revealed.stdout) - 70, len(revealed.stdout) - 5):
        done = run_program("place-opening-keys", configs[1], "-", given=revealed.stdout[:cut])
        assert (done.returncode, done.stderr[:7]) == (1, "FAILED:")
        assert not any(line[3:20] in done.stderr for line in revealed.stdout.splitlines()[1:])
    assert kept_in(folders[1]) == kept_in(folders[0])


def test_keys_are_revealed_to_no_file_and_no_terminal(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    """Both keep what they are given: the keys would lie about in the clear."""
    config, shown = write_settings(tmp_path, nats_server), tmp_path / "shown"
    FileKeyProvider.create(LedgerSettings.load(config).provider_keys)
    ours, terminal = os.openpty()
    with shown.open("wb") as file:
        for kept in (file.fileno(), terminal):
            with (tmp_path / "errors").open("wb") as errors:
                done = fork("ledger", ["reveal-opening-keys", config], stdout=kept, stderr=errors)
            assert done.wait(WAIT_S_MAX) == 2
            assert "pipe it into" in (tmp_path / "errors").read_text()
    os.close(terminal)
    os.close(ours)
    assert shown.read_bytes() == b""


def kept_in(folder: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in folder.iterdir()}


@pytest.mark.promise(5)
def test_keys_that_do_not_open_the_store_replace_none(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    """Copied the wrong way after a rotation: the newest key may be nowhere else."""
    config, mounted = write_settings(tmp_path, nats_server), tmp_path / "mounted"
    settings = LedgerSettings.load(config)
    new_log(tmp_path)
    with opened_openings(settings) as openings:
        openings.sealer.prepare("CA0194200")
    mounted.mkdir()
    (mounted / "v1.key").write_text((settings.provider_keys / "v1.key").read_text())
    with opened_keyring(settings) as keyring:
        keyring.rotate()
    before = kept_in(settings.provider_keys)
    done = run_program("place-opening-keys", config, mounted)
    assert (done.returncode, done.stderr[:7]) == (1, "FAILED:")
    assert "nothing was changed" in done.stderr
    (mounted / "v2.key").write_text("0" * 64 + "\n")  # another one by the same name
    assert run_program("place-opening-keys", config, mounted).returncode == 1
    assert kept_in(settings.provider_keys) == before
    # The way that is right takes away what is needed no more.
    (mounted / "v2.key").write_text(before["v2.key"])
    (mounted / "v1.key").unlink()
    assert run_program("place-opening-keys", config, mounted).returncode == 0
    with opened_openings(settings):
        assert list(kept_in(settings.provider_keys)) == ["v2.key"]


def test_no_key_at_all_is_not_placed(tmp_path: Path, nats_server: NatsUnderTest) -> None:
    """A secret that was mounted empty: the keys that are there stay."""
    config, mounted = write_settings(tmp_path, nats_server), tmp_path / "mounted"
    mounted.mkdir()
    folder = LedgerSettings.load(config).provider_keys
    FileKeyProvider.create(folder)
    done = run_program("place-opening-keys", config, mounted)
    assert (done.returncode, done.stderr[:7]) == (1, "FAILED:")
    assert FileKeyProvider(folder).versions() == [1]


@pytest.mark.promise(5)
def test_a_ledger_that_lacks_a_key_of_the_store_does_not_start(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    """Before it seals anything: otherwise it would find out in the middle of an append."""
    settings = LedgerSettings.load(write_settings(tmp_path, nats_server))
    new_log(tmp_path)
    with opened_openings(settings) as openings:
        openings.sealer.prepare("CA0194200")
    newest = settings.provider_keys / "v1.key"
    kept = newest.read_text()
    newest.write_text("0" * 64 + "\n")
    with (
        pytest.raises(NotReady, match="version 1 of the opening keys, which wraps the key of CA0"),
        opened_openings(settings),
    ):
        pass
    newest.unlink()
    with pytest.raises(NotReady, match="holds no key"), opened_openings(settings):
        pass
    assert not newest.exists(), "a key of its own would open nothing that is stored"
    newest.write_text(kept)
    newest.chmod(0o600)
    with opened_keyring(settings) as keyring:
        keyring.rotate()
    (settings.provider_keys / "v2.key").unlink()
    with pytest.raises(NotReady, match="version 2 of the opening keys"), opened_openings(settings):
        pass
