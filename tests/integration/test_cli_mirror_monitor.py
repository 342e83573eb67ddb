"""`countersign ledger mirror`, `monitor` and `evidence` as programs, against a log over HTTP."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from countersign.mirror.follow import REASONS
from countersign.mirror.watch import AlarmKind
from support.exports import export_of
from support.filled_logs import entries_of
from support.forked import COUNTERSIGN, run_forked
from support.ledgers import COMPLETER, LAPD, SIGNER, decided
from support.lying_logs import LyingLog, forked, lying_log
from support.scrapes import every_expression, fetched, missing
from support.sources import listed
from tlog.verify import verify_export

VKEY = SIGNER.verifier.vkey
ENTRIES = entries_of(700)


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COUNTERSIGN_")}
    needs = ["countersign.cli.ledger"]
    return run_forked(COUNTERSIGN, *arguments, folder=folder, environment=environment, needs=needs)


class Shell:
    """Runs the command in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, "ledger", *arguments, folder=self.folder)


@pytest.fixture(name="shell")
def _shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(name="log")
async def _log() -> AsyncIterator[LyingLog]:
    async with lying_log(ENTRIES[:300]) as log:
        yield log


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_a_mirror_is_made_verified_refused_and_mended(log: LyingLog, shell: Shell) -> None:
    mirror = ("mirror", log.url, "copy", "--key", VKEY, "--once")
    done = await shell(*mirror)
    assert (done.returncode, done.stdout) == (0, "VERIFIED: 300 entries, 300 of them new\n")
    log.show(ENTRIES)
    done = await shell(*mirror, "--json")
    (document,) = documents(done.stdout)
    assert (document["size"], document["added"], document["cosigned"]) == (700, 400, [])
    judged = await shell("verify", "copy", "--key", VKEY)
    assert (judged.returncode, judged.stdout[:8]) == (0, "VERIFIED")
    # A damaged file of the copy.
    torn = shell.folder / "copy" / "tile" / "entries" / "000"
    torn.write_bytes(torn.read_bytes()[:100])
    done = await shell(*mirror)
    assert done.returncode == 1
    assert "tile/entries/000" in done.stderr
    assert "COPY_DAMAGED" not in done.stdout
    done = await shell(*mirror, "--mend")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Mended 1 files")
    # Another history.
    log.show_only(forked(ENTRIES, 5, 700))
    done = await shell(*mirror)
    assert done.returncode == 1
    assert "two histories" in done.stderr.replace("\n", " ")
    (proof,) = (shell.folder / "copy" / "evidence").iterdir()
    done = await shell("evidence", proof, "--key", VKEY)
    assert (done.returncode, done.stdout[:6]) == (0, "PROVEN")
    (shell.folder / "none.json").write_text("{}")
    done = await shell("evidence", "none.json", proof, "--key", VKEY, "--json")
    assert done.returncode == 1
    assert [one["proven"] for one in documents(done.stdout)] == [False, True]


async def test_what_a_mirror_cannot_use(log: LyingLog, shell: Shell) -> None:
    (shell.folder / "policy").write_text("quorum w1\n")
    for arguments, code, said in (
        ((log.url, "copy", "--once"), 2, "--key"),
        (("copy", "--key", VKEY, "--once"), 2, "URL"),
        (("letters", "copy", "--key", VKEY, "--once"), 2, "not a URL"),
        ((log.url, "copy", "--policy", "policy", "--once"), 2, "line 1"),
        (("http://127.0.0.1:1", "copy", "--key", VKEY, "--once"), 3, "127.0.0.1:1"),
        ((log.url, "policy/copy", "--key", VKEY, "--once"), 2, "policy/copy"),
    ):
        done = await shell("mirror", *arguments)
        assert done.returncode == code, done
        assert said in done.stderr, done


async def test_a_mirror_follows_until_it_is_told_to_stop(log: LyingLog, shell: Shell) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from countersign.cli.main import main; main()"),
        *("ledger", "mirror", log.url, "copy", "--key", VKEY, "--every", "0.1", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=shell.folder,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        assert json.loads(line)["size"] == 300
        log.show_only(ENTRIES[:10])  # told on standard error, and got over
        log.asked.clear()
        log.show_only(ENTRIES)
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        assert json.loads(line)["size"] == 700
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    def read(path: str) -> bytes | None:
        file = shell.folder / "copy" / path
        return file.read_bytes() if file.exists() else None

    assert verify_export(read, SIGNER.verifier).checkpoint.size == 700


async def test_the_monitor_tells_entries_and_alarms_by_exit_code(
    log: LyingLog, shell: Shell
) -> None:
    leaves = [COMPLETER.complete(decided(number), "entry").leaf for number in range(10)]
    log.show_only(leaves)
    monitor = ("monitor", log.url, "--key", VKEY, "--agency", LAPD, "--once", "--state", "state")
    calm = ("--stale-after", "1e9")
    done = await shell(*monitor, *calm)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
    assert all("search_decided" in line and LAPD in line for line in done.stdout.splitlines())
    (looked,) = documents(done.stderr)
    assert (looked["message"], looked["size"], looked["concerning"]) == ("looked", 10, 10)
    # Entries that were told are not told again; the log has been standing still since its entries.
    done = await shell(*monitor, "--json", "--stale-after", "1")
    assert done.returncode == 4
    alarm, look = documents(done.stdout)
    assert alarm["alarm"]["kind"] == "stale"
    assert look["look"]["new"] == 0
    assert [one["message"] for one in documents(done.stderr)] == ["looked", "alarm"]
    # Another history elsewhere.
    async with lying_log(forked(leaves, 3, 10)) as elsewhere:
        done = await shell(*monitor, *calm, "--against", elsewhere.url)
    assert done.returncode == 6
    assert done.stdout.startswith("ALARM split_view: ")
    (proof,) = (shell.folder / "evidence").iterdir()
    assert (await shell("evidence", proof, "--key", VKEY)).returncode == 0
    # A copy that agrees, and a server that is away.
    for path, content in export_of(leaves, SIGNER).items():
        (shell.folder / "copy" / path).parent.mkdir(parents=True, exist_ok=True)
        (shell.folder / "copy" / path).write_bytes(content)
    assert (await shell(*monitor, *calm, "--against", "copy")).returncode == 0
    done = await shell("monitor", "http://127.0.0.1:1", "--key", VKEY, "--once")
    assert done.returncode == 3
    (shell.folder / ".elsewhere.new").mkdir()
    done = await shell(*monitor[:-1], "elsewhere", *calm)
    assert (done.returncode, "state not kept" in done.stderr) == (2, True)
    (shell.folder / "state").write_text("letters")
    assert (await shell(*monitor)).returncode == 1


async def test_the_monitor_ends_when_two_histories_were_signed(log: LyingLog, shell: Shell) -> None:
    async with lying_log(forked(ENTRIES, 3, 400)) as elsewhere:
        done = await shell(
            *("monitor", log.url, "--key", VKEY, "--against", elsewhere.url, "--stale-after", "1e9")
        )
    assert done.returncode == 6


@asynccontextmanager
async def watching(folder: Path, *arguments: str) -> AsyncIterator[Path]:
    """A process that goes on, with the file into which its log goes; once its first look is told."""
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from countersign.cli.main import main; main()"),
            *("ledger", *arguments, "--key", VKEY, "--every", "3600", "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=os.environ | {"COUNTERSIGN_TELEMETRY__SCRAPE": "127.0.0.1:0"},
        )
    try:
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 120)
        yield log
    finally:
        process.terminate()
        await process.wait()


async def test_what_alerts_ask_of_monitor_and_mirror_is_measured(
    log: LyingLog, tmp_path: Path
) -> None:
    """From their start on: the first alarm must be a rise, since a second history ends the process."""
    async with (
        watching(tmp_path, "monitor", log.url, "--stale-after", "1e9") as monitor,
        watching(tmp_path, "mirror", log.url, "copy") as mirror,
    ):
        of_monitor, of_mirror = fetched(monitor.read_text()), fetched(mirror.read_text())
    asked = [one for one in every_expression() if one.watching]
    assert len(asked) >= 6
    offenders = missing(asked, of_monitor + of_mirror)
    assert not offenders, listed(offenders)
    for kind in AlarmKind:
        assert re.search(rf'monitor_alarms_total{{kind="{kind.name.lower()}"}} 0', of_monitor)
    for reason in REASONS:
        assert re.search(rf'mirror_refusals_total{{reason="{reason}"}} 0', of_mirror)
