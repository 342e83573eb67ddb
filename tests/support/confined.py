"""Becomes a program under the filters of a systemd unit: `confined.py RULES.json PROGRAM ARGUMENT ...`.

What systemd does before it starts a service, as far as it can be done without systemd: system calls and
address families (libseccomp, which comes with systemd), no memory that is both writable and executable, no
new privileges.
"""

import ctypes
import json
import os
import socket
import sys
from pathlib import Path

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | 1  # EPERM
EQUAL = 4
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
MDWE_REFUSE_EXEC_GAIN = 1


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def main() -> None:
    rules = json.loads(Path(sys.argv[1]).read_text())
    own = ctypes.CDLL(None, use_errno=True)
    assert own.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    # Linux 6.3; an older kernel says that it knows no such thing, and systemd would use a filter.
    own.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    rule_add = library.seccomp_rule_add_array
    rule_add.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(Comparison),
    )
    context = library.seccomp_init(REFUSE)
    assert context
    for name in rules["calls"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue  # of another architecture
        kinds = rules["families"] if name == "socket" else [None]
        for kind in kinds:
            only = Comparison(0, EQUAL, getattr(socket, kind) if kind else 0, 0)
            assert rule_add(context, ALLOW, number, 1 if kind else 0, ctypes.byref(only)) == 0
    library.seccomp_load.argtypes = (ctypes.c_void_p,)
    assert library.seccomp_load(context) == 0
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
