"""What a test forks is a process as a plain start makes it."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from support.forked import COUNTERSIGN, fork, run_forked
from support.waiting import WAIT_S_MAX
from support.witnesses import LOG_SIGNER, write_witness


def test_a_program_ends_with_its_code_and_says_what_it_says(tmp_path: Path) -> None:
    done = run_forked("witness", "begin", "nowhere.toml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("countersign-witness: nowhere.toml: No such file")
    done = run_forked("witness", "begin", write_witness(tmp_path, LOG_SIGNER.verifier.vkey))
    assert (done.returncode, done.stdout[:6], done.stderr) == (0, "BEGUN:", "")
    done = run_forked(COUNTERSIGN, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_process_is_frozen_killed_and_waited_for(tmp_path: Path) -> None:
    config = write_witness(tmp_path, LOG_SIGNER.verifier.vkey)
    with (tmp_path / "said").open("wb") as said:
        process = fork("witness", [config], stdout=said, stderr=said)
    process.send_signal(signal.SIGSTOP)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.kill()
    assert (process.wait(WAIT_S_MAX), process.poll()) == (-signal.SIGKILL, -signal.SIGKILL)
    assert not psutil.pid_exists(process.pid)
    process.kill()  # which has ended
