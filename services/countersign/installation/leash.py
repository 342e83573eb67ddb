"""Runs a program that ends when the process that started it ends, however that ends.

Used as a script: `python -I -S leash.py PARENT PROGRAM ARGUMENT...`. It asks the kernel for SIGKILL on
the parent's death (prctl(2), PR_SET_PDEATHSIG), which lasts across exec, and becomes the program.
Imports little, since it stands before the start of every process.

It also has the program take turns on the processor that are long and few (sched(7), SCHED_BATCH): the
parts of an installation on one machine wake each other for every message, and whoever comes to the
processor finds the caches filled by another.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

TURN_NS = 60_000_000
"""How long it goes on while others wait too; by itself Linux takes about 3 ms. A fifth of a search when
64 are in flight; with fewer there is hardly anybody to wait for."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call. The C library has had a function for it only since glibc 2.41."""


class _Scheduling(ctypes.Structure):
    """struct sched_attr of sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def _take_long_turns(libc: ctypes.CDLL) -> None:
    """No more than a wish: before Linux 6.12 the length is ignored, and another chosen policy stays."""
    call = _SCHED_SETATTR.get(os.uname().machine)
    if call is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    wanted = _Scheduling(policy=os.SCHED_BATCH, nice=os.nice(0), runtime=TURN_NS)
    wanted.size = ctypes.sizeof(wanted)
    libc.syscall(call, 0, ctypes.byref(wanted), 0)


def main() -> None:
    """Never returns."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit("cannot tie this process to its parent")
    # The parent may have ended before the line above.
    if os.getppid() != int(parent):
        sys.exit(1)
    _take_long_turns(libc)
    os.execv(command[0], command)  # noqa: S606  # the program is given by the supervisor


if __name__ == "__main__":
    main()
