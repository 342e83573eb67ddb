"""The witness over HTTP, in this process and as the real program."""

import asyncio
import json
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from support.forked import run_forked
from support.witnesses import (
    LOG_SIGNER,
    ORIGIN,
    GrowingLog,
    WitnessesOfOneStore,
    WitnessProcess,
    origin_hash,
    post,
    serving,
    write_witness,
)
from tlog.cosignature import CosignatureVerifier
from tlog.note import Signer, parse_signatures
from tlog.witness_protocol import REQUEST_BYTES_MAX

LOG = GrowingLog()
FORK = GrowingLog(fork_at=2)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The program, to its end."""
    return run_forked("witness", *arguments)


def make_certificate(folder: Path) -> None:
    """A certificate of its own authority for the loopback interface."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", folder / "tls.key", "-out", folder / "tls.pem", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip


async def get(url: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def test_every_status_over_http(tmp_path: Path) -> None:
    held = WitnessesOfOneStore(tmp_path)
    stranger = GrowingLog(Signer.from_seed("stranger.example/log", bytes(32)))
    impostor = GrowingLog(Signer.from_seed(ORIGIN, bytes(32)))
    async with serving(held.witness, tmp_path, "/witness") as url:
        assert (await post(url, b"nonsense"))[0] == 400
        assert (await post(url, b"x" * (REQUEST_BYTES_MAX + 1)))[0] == 400
        assert (await post(url, stranger.request(0, 7)))[0] == 404
        assert (await post(url, impostor.request(0, 7)))[0] == 403
        assert await post(url, LOG.request(3, 7)) == (409, "text/x.tlog.size", "0\n")
        status, kind, lines = await post(url, LOG.request(0, 5))
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        assert [line.name for line in parse_signatures(lines)] == ["witness.example/w1"]
        assert (await post(url, FORK.request(5, 7)))[0] == 422
        newest = await get(f"{url}/{origin_hash(ORIGIN)}/checkpoint")
        assert newest == (200, "text/plain; charset=utf-8", LOG.note(5) + lines)
        assert (await get(f"{url}/{origin_hash('stranger')}/checkpoint"))[0] == 404
        assert (await get(f"{url}/health"))[0] == 200
        assert (await get(f"{url}/{origin_hash(ORIGIN).upper()}/checkpoint"))[0] == 404
    held.store.close()


async def test_many_at_once_are_answered_in_some_order(tmp_path: Path) -> None:
    held = WitnessesOfOneStore(tmp_path)
    async with serving(held.witness, tmp_path) as url:
        bodies = [LOG.request(0, size) for size in range(1, 21)]
        answers = await asyncio.gather(*(post(url, body) for body in bodies))
        assert sorted(status for status, _, _ in answers) == [200] + [409] * 19
        won = 1 + [status for status, _, _ in answers].index(200)
        assert {body for status, _, body in answers if status == 409} == {f"{won}\n"}
    held.store.close()


async def test_state_that_cannot_be_written_is_500_and_shows_in_health(tmp_path: Path) -> None:
    held = WitnessesOfOneStore(tmp_path)
    async with serving(held.witness, tmp_path) as url:
        held.store.close()
        assert (await post(url, LOG.request(0, 5)))[0] == 500
        assert (await get(f"{url}/health"))[0] == 503
        assert (await get(f"{url}/{origin_hash(ORIGIN)}/checkpoint"))[0] == 500


async def test_the_real_program(tmp_path: Path) -> None:
    """From keys to a restart that remembers."""
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    witness = WitnessProcess(config)
    await witness.start()
    _, _, lines = await post(witness.url, LOG.request(0, 5))
    vkeys = [(tmp_path / f"witness-{kind}.vkey").read_text() for kind in ("ed25519", "ml-dsa-44")]
    for vkey, line in zip(vkeys, parse_signatures(lines), strict=True):
        verifier = CosignatureVerifier.parse(vkey.strip())
        assert verifier.key_id == line.key_id
        assert verifier.verify(LOG.checkpoint(5).text, line.signature)
    assert witness.stop() == 0
    await witness.start()
    assert (await post(witness.url, LOG.request(0, 7)))[2] == "5\n"
    assert (await post(witness.url, FORK.request(5, 5)))[0] == 422
    shown = run("evidence", config)
    assert shown.returncode == 1
    assert json.loads(shown.stdout)["two_histories"] is True
    assert witness.stop() == 0


async def test_the_real_program_over_tls(tmp_path: Path) -> None:
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    make_certificate(tmp_path)
    text = config.read_text()
    config.write_text(
        text.replace("[listen]\n", '[listen]\ncertificate = "tls.pem"\nkey = "tls.key"\n')
    )
    witness = WitnessProcess(config)
    await witness.start()
    trusted = ssl.create_default_context(cafile=str(tmp_path / "tls.pem"))
    url = witness.url.replace("http:", "https:")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/add-checkpoint", data=LOG.request(0, 5), ssl=trusted) as response,
    ):
        assert response.status == 200
    assert witness.stop() == 0


def test_new_key_prints_verifier_keys_and_replaces_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = run("new-key", "witness.example/w1", folder)
    assert made.returncode == 0, made.stderr
    vkeys = [CosignatureVerifier.parse(line) for line in made.stdout.splitlines()]
    assert [(one.name, int(one.kind)) for one in vkeys] == [
        ("witness.example/w1", 4),
        ("witness.example/w1", 6),
    ]
    secrets = [path for path in folder.iterdir() if path.suffix == ".key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert not any(path.read_text() in made.stdout + made.stderr for path in secrets)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    again = run("new-key", "witness.example/w1", folder)
    assert (again.returncode, again.stdout) == (2, "")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["two words", "a+b", "", "x" * 300])
def test_new_key_refuses_names_that_a_note_cannot_bear(tmp_path: Path, name: str) -> None:
    assert run("new-key", name, tmp_path / "keys").returncode == 2


def test_lost_state_is_not_begun_anew(tmp_path: Path) -> None:
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    config.write_text(config.read_text().replace("create_if_missing = true\n", ""))
    ended = run(config)
    assert ended.returncode == 1
    assert "WITNESS_STATE_MISSING" in ended.stderr


def test_damaged_state_is_not_used(tmp_path: Path) -> None:
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    (tmp_path / "witness.sqlite3").write_bytes(os.urandom(8192))
    ended = run(config)
    assert ended.returncode == 1
    assert "WITNESS_STATE_UNREADABLE" in ended.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('keys = ["witness-ed25519.key"', 'keys = ["missing.key"', "missing.key"),
        (
            'keys = ["witness-ed25519.key"',
            'keys = ["witness-ed25519.vkey"',
            "not a witness's key file",
        ),
        ("[logs.ledger]", "[nologs.ledger]", "nologs"),
        (LOG_SIGNER.verifier.vkey, "ledger.example/exchange+00000000+AAAA", "key id"),
        ('address = "127.0.0.1:', 'address = "nowhere.invalid:', "cannot listen"),
        ('port_file = "port"', 'certificate = "tls.pem"', "together"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    ended = run(config)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr or says.replace(" ", "'s ") in ended.stderr


def test_the_command_becomes_the_program(tmp_path: Path) -> None:
    program = "from countersign.cli.main import main; main()"
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "witness",
            "new-key",
            "witness.example/w1",
            tmp_path / "keys",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("witness.example/w1+")
