"""Our programs as processes of their own, to be frozen and killed."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from support.forked import ForkedProcess, fork
from support.waiting import WAIT_S_MAX, until


class ProgramUnderTest:
    """A program that listens: its configuration names a file `port` beside it. Logs beside that too."""

    def __init__(self, config: Path, program: str | tuple[Path, str]) -> None:
        """`program` is a module of ours, or a file of the tests' with an argument."""
        self.config = config
        self._program = program
        self._port_file = config.with_name("port")
        self._log_file = config.with_suffix(".log")
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None

    @property
    def port(self) -> int:
        """Where it listens now."""
        return int(self._port_file.read_text())

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log_file.read_text()

    @property
    def said(self) -> bytes:
        """What it has written since its last start."""
        return self._log_file.read_bytes()[self._log_start :]

    @property
    def lives(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Starts it and waits until it listens."""
        self._port_file.unlink(missing_ok=True)
        self._spawn()

        async def listens() -> bool:
            assert self.lives, self.log
            return self._port_file.exists() and bool(self._port_file.read_text())

        await until(listens)

    def _spawn(self) -> None:
        with self._log_file.open("ab") as log:
            self._log_start = log.tell()
            if isinstance(self._program, str):
                self._process = fork(self._program, [self.config], stdout=log, stderr=log)
                return
            self._process = subprocess.Popen(
                [sys.executable, *self._program, self.config], stdout=log, stderr=log
            )

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on, as if no time had passed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def ends(self) -> int:
        """Waits until it ends by itself; gives its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, WAIT_S_MAX)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Tells it to end; gives its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(WAIT_S_MAX)
