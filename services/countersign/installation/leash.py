"""Runs a program that ends when the process that started it ends, however that ends.

Used as a script: `python -I -S leash.py PARENT PROGRAM ARGUMENT...`. It asks the kernel for SIGKILL on
the parent's death (prctl(2), PR_SET_PDEATHSIG), which lasts across exec, and becomes the program.
Imports little, since it stands before the start of every process.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit("cannot tie this process to its parent")
    # The parent may have ended before the line above.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # the program is given by the supervisor


if __name__ == "__main__":
    main()
