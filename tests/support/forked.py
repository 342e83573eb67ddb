"""Our programs as processes of their own, whose imports were done once for all of them.

Most of what the start of a program costs is imports: for the ledger two seconds of a processor. Here one
process, which lives as long as the tests run, imports each program when it is first asked for. What a test
starts is forked from it: a process like any other, to be frozen and killed. It ends no later than the tests.

    process = fork("ledger", [config], stdout=file, stderr=file)
    done = run_forked("ledger", "check", config)

A program is named as for `python -m`, and runs from its first line as with that; or as "module:function",
which is called, as an installed script does. What a program imports, and how it is found, is for tests that
start it in the plain way.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from countersign.installation.leash import PR_SET_PDEATHSIG

COUNTERSIGN = "countersign.cli.main:main"
REQUEST_BYTES_MAX = 128 * 1024  # a command line and an environment
STATUS_BYTES_MAX = 32
RUN_S_MAX = 120


@dataclass(frozen=True)
class _Start:
    """What to start, and where."""

    program: str
    arguments: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    needs: tuple[str, ...]


class ForkedProcess:
    """As `subprocess.Popen` has it, for a process that is no child of ours."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        told = status.recv(STATUS_BYTES_MAX)
        assert told, "the process that forks others has ended; it says why on standard error"
        self.pid = int(told)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        with contextlib.suppress(BlockingIOError):
            # Looked at and left there, for any thread that asks.
            return int(self._status.recv(STATUS_BYTES_MAX, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it ends. Raises `TimeoutExpired`."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._status, selectors.EVENT_READ)
            selector.select(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tells it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.send_signal(signal.SIGKILL)


def fork(
    program: str,
    arguments: Sequence[str | Path],
    *,
    stdout: IO[Any] | int,
    stderr: IO[Any] | int,
    stdin: IO[Any] | int | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    needs: Sequence[str] = (),
) -> ForkedProcess:
    """Starts a program of ours. `needs` are modules that it imports only once it knows what to do."""
    start = _Start(
        program,
        tuple(map(str, arguments)),
        str(folder or Path.cwd()),
        dict(os.environ if environment is None else environment),
        tuple(needs),
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as stack:
        stack.callback(theirs.close)
        given = stdin if stdin is not None else stack.enter_context(Path(os.devnull).open("rb"))
        files = [one if isinstance(one, int) else one.fileno() for one in (given, stdout, stderr)]
        socket.send_fds(_door(), [json.dumps(asdict(start)).encode()], [theirs.fileno(), *files])
    return ForkedProcess(ours)


def run_forked(
    program: str,
    *arguments: str | Path,
    given: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    needs: Sequence[str] = (),
) -> "subprocess.CompletedProcess[str]":
    """Runs a program of ours to its end, between pipes."""
    ends = [os.pipe() for _ in range(3)]
    (in_read, in_write), (out_read, out_write), (err_read, err_write) = ends
    process = fork(
        program,
        arguments,
        stdin=in_read,
        stdout=out_write,
        stderr=err_write,
        folder=folder,
        environment=environment,
        needs=needs,
    )
    for end in (in_read, out_write, err_write):
        os.close(end)
    with (
        os.fdopen(out_read) as out,
        os.fdopen(err_read) as err,
        ThreadPoolExecutor(2) as pool,
    ):
        written = [pool.submit(one.read) for one in (out, err)]
        with contextlib.suppress(BrokenPipeError), os.fdopen(in_write, "w") as to_it:
            to_it.write(given)
        try:
            code = process.wait(RUN_S_MAX)
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            [program, *arguments], code, *(one.result() for one in written)
        )


@functools.cache
def _door() -> socket.socket:
    """To the process that forks others, which ends with the last of its door."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        _keep(
            subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # It finds what the tests find, their own programs too.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # Not to be interrupted with us: those that it forked end with it, and it with us.
                start_new_session=True,
            )
        )
    return ours


def _keep(process: "subprocess.Popen[bytes]") -> None:
    """Nobody waits for it."""
    process.returncode = 0


def _import(program: str) -> None:
    """Has everything that a program imports in memory."""
    module = program.partition(":")[0]
    spec = find_spec(module)
    assert spec is not None, module
    name = f"{module}.__main__" if spec.submodule_search_locations else module
    importlib.import_module(name)
    if name.endswith(".__main__"):
        del sys.modules[name]  # it runs again from its first line
    # Neither counted nor copied by those that are forked.
    gc.collect()
    gc.freeze()


def _serve(door: socket.socket) -> _Start | None:
    """Forks until the door is closed. Returns in each process that was forked, with what it is to become."""
    imported: set[str] = set()
    selector = selectors.DefaultSelector()
    selector.register(door, selectors.EVENT_READ)
    statuses: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is not door:
                pid, status = statuses.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError):  # perhaps nobody asks any more
                    status.send(str(code).encode())
                status.close()
                continue
            message, files, _, _ = socket.recv_fds(door, REQUEST_BYTES_MAX, 4)
            if not message:
                return None
            start = _Start(**json.loads(message))
            for needed in {start.program, *start.needs} - imported:
                _import(needed)
                imported.add(needed)
            # A thread would be missing in what is forked, with whatever it held.
            assert len(list(Path("/proc/self/task").iterdir())) == 1, start.program
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                selector.close()
                door.close()
                for watched, (_, status) in statuses.items():
                    os.close(watched)
                    status.close()
                _take_place(start, parent, files)
                return start
            status = socket.socket(fileno=files[0])
            for file in files[1:]:
                os.close(file)
            status.send(str(pid).encode())
            watched = os.pidfd_open(pid)
            statuses[watched] = pid, status
            selector.register(watched, selectors.EVENT_READ)


def _take_place(start: _Start, parent: int, files: Sequence[int]) -> None:
    """A new process comes to have what a new one has that `subprocess` made."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    # As on the leash of an installation: long turns on the processor, and few.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    os.close(files[0])
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(start.folder)
    os.environ.clear()
    os.environ.update(start.environment)
    sys.argv = [start.program, *start.arguments]


class _Leaving:
    """The end of a process once everything was called that asked for it.

    To take apart all that was imported would take a second; what is frozen would be told of as leaked.
    """

    def __init__(self) -> None:
        self.code = 0
        atexit.register(self._leave)  # first, so that it is called last

    def _leave(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.code)


def main() -> None:
    """In the process that forks, and in each one that was forked."""
    leaving = _Leaving()
    start = _serve(socket.socket(fileno=int(sys.argv[1])))
    if start is None:
        return
    leaving.code = 1
    try:
        module, _, function = start.program.partition(":")
        if function:
            getattr(importlib.import_module(module), function)()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        leaving.code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    leaving.code = 0


if __name__ == "__main__":
    main()
