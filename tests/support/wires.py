"""A wire between two ends of this machine that delays packets and loses them, as real networks do.

Each end is a network namespace of its own, which belongs to a thread of this process and to nothing else,
so that nothing is left behind however the process ends. What goes from one to the other, this
process reads and writes as a TUN device; TCP above it is the kernel's. `tc netem` would do the same where
the kernel has it; many have not.

It needs the rights to make namespaces and /dev/net/tun: `why_not()` says what is missing.
"""

import asyncio
import ctypes
import fcntl
import heapq
import os
import random
import selectors
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final, Self, TypeVar

Done = TypeVar("Done")

NEAR: Final = "10.77.0.1"
FAR: Final = "10.77.0.2"
DEVICE: Final = b"wire"
PACKET_BYTES_MAX: Final = 65_536
PACKETS_WAITING_MAX: Final = 10_000
"""More than TCP lets wait; what does not fit is lost."""
BOUND_S: Final = 10.0

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_TUN_WITHOUT_HEADER: Final = 0x1001
_TUN: Final = Path("/dev/net/tun")


class NoWire(Exception):
    """This machine does not let us have one; the message says why."""


@cache
def why_not() -> str:
    """What a wire lacks on this machine; empty when it can have one."""
    try:
        with Wire():
            return ""
    except NoWire as error:
        return str(error)


class _End:
    """A network namespace with one device, in a thread of its own."""

    def __init__(self, address: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        try:
            self.device = self._thread.submit(_new_device, address).result(BOUND_S)
        except BaseException:
            self._thread.shutdown()
            raise

    def do(self, work: Callable[[], Done]) -> Done:
        """Does it there: a socket belongs for ever to the namespace in which it was made."""
        return self._thread.submit(work).result(BOUND_S)

    def close(self) -> None:
        os.close(self.device)
        self._thread.shutdown()


def _new_device(address: str) -> int:
    """In a namespace that this thread has from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise NoWire(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    try:
        device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", DEVICE, _TUN_WITHOUT_HEADER)
        fcntl.ioctl(device, _TUNSETIFF, request)
        for words in (["addr", "add", f"{address}/30"], ["link", "set", "up"]):
            command = ["ip", *words, "dev", DEVICE.decode()]
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoWire(f"no TUN device: {error}") from error
    return device


class Wire:
    """Two ends, and what becomes of packets between them."""

    def __init__(self) -> None:
        self._loses, self._delays_s = 0.0, 0.0
        self.lost = 0
        """Packets, so far."""
        self._near: _End | None = None
        self._far: _End | None = None
        self._chance = random.Random(DEVICE)
        self._stopped = threading.Event()
        self._carrier = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> Self:
        """Begins to carry. Raises NoWire."""
        self._near = _End(NEAR)
        try:
            self._far = _End(FAR)
        except BaseException:
            self._near.close()
            raise
        self._carrier.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Takes it away."""
        self._stopped.set()
        self._carrier.join(BOUND_S)
        for end in (self._near, self._far):
            if end is not None:
                end.close()

    def become(self, *, loses: float = 0.0, delays_s: float = 0.0) -> None:
        """Loses this share of all packets, each way; 1 for a wire that is dead and says nothing.

        What it does not lose comes so much later each way, or up to half as much again.
        """
        self._loses, self._delays_s = loses, delays_s

    def mend(self) -> None:
        """As if nothing had been."""
        self.become()

    def listen(self) -> socket.socket:
        """A socket at the far end, which takes connections."""
        assert self._far is not None
        return self._far.do(lambda: socket.create_server((FAR, 0)))

    async def reach(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from the near end."""
        assert self._near is not None
        near = self._near.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        try:
            near.setblocking(False)
            await asyncio.get_running_loop().sock_connect(near, (FAR, port))
            return await asyncio.open_connection(sock=near)
        except BaseException:
            near.close()
            raise

    def _carry(self) -> None:
        """Moves each packet to the other end when it is due, until the wire is taken away."""
        assert self._near is not None
        assert self._far is not None
        other = {self._near.device: self._far.device, self._far.device: self._near.device}
        waiting: list[tuple[float, int, int, bytes]] = []
        count = 0
        with selectors.DefaultSelector() as selector:
            for device in other:
                selector.register(device, selectors.EVENT_READ)
            while not self._stopped.is_set():
                due = max(0.0, waiting[0][0] - time.monotonic()) if waiting else BOUND_S / 100
                for key, _ in selector.select(min(due, BOUND_S / 100)):
                    packet = os.read(key.fd, PACKET_BYTES_MAX)
                    if self._chance.random() < self._loses or len(waiting) >= PACKETS_WAITING_MAX:
                        self.lost += 1
                        continue
                    later = self._delays_s * (1 + self._chance.random() / 2)
                    count += 1
                    heapq.heappush(
                        waiting, (time.monotonic() + later, count, other[key.fd], packet)
                    )
                while waiting and waiting[0][0] <= time.monotonic():
                    *_, to, packet = heapq.heappop(waiting)
                    os.write(to, packet)
