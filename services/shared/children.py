"""Starts another program from a process that serves gRPC, and speaks with it over its pipes.

uvloop's way forks. A fork of a process whose threads are inside gRPC may never come to its exec, and the loop
waits for that without end: a policy service hung so while it published. `subprocess` takes vfork, after which
nothing of ours runs in the child.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

END_S_MAX: Final = 5.0
"""How long a killed program may take to be gone. Only the kernel can keep it longer."""


class Child:
    """A program that reads and writes messages. What it says of errors goes nowhere."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        reading: asyncio.ReadTransport,
    ) -> None:
        self._process = process
        self._reading = reading
        self.stdin = stdin
        self.stdout = stdout

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> "Child":
        """Starts it, in a session of its own: a terminal's Ctrl-C is not for it. Raises OSError."""
        process = _started(command, environment)
        try:
            return await cls._connected(process)
        except BaseException:
            process.kill()
            raise

    @classmethod
    async def _connected(cls, process: subprocess.Popen[bytes]) -> "Child":
        loop = asyncio.get_running_loop()
        stdout = asyncio.StreamReader()
        reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdout), process.stdout
        )
        writing, flow = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, process.stdin
        )
        return cls(process, asyncio.StreamWriter(writing, flow, None, loop), stdout, reading)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    async def end(self) -> int | None:
        """Kills it if it runs, and waits until it is gone; gives how it ended."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self.stdin.close()
        self._reading.close()
        try:
            return await asyncio.to_thread(self._process.wait, END_S_MAX)
        except subprocess.TimeoutExpired:
            return None


def _started(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Waits for the exec alone, a millisecond or two."""
    return subprocess.Popen(  # noqa: S603  # the caller's own program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
