"""Tells whatever started this process how it goes: systemd's notification protocol (sd_notify(3)).

Where nobody asked (no NOTIFY_SOCKET in the environment), nothing is said.
"""

import contextlib
import os
import socket
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def tell(state: str) -> None:
    """Says it once; whether anybody listens makes no difference to us."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    # An at sign stands for the zero byte of Linux' abstract names.
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        channel.setblocking(False)
        channel.sendto(state.encode(), name)
