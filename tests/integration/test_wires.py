"""The wires of the fault suite lose what they say that they lose, and TCP brings all of it all the same."""

import asyncio

import pytest

from countersign.installation.ports import LOOPBACK
from support.wires import Wire, why_not

PIECE = bytes(range(256)) * 16
PIECES = 40


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(len(PIECE)):
        writer.write(data)
    writer.close()
    await writer.wait_closed()


async def test_what_a_bad_wire_loses_comes_again() -> None:
    if missing := why_not():
        pytest.skip(f"this machine has no wires: {missing}")
    with Wire() as wire:
        listening = wire.listen()
        port = listening.getsockname()[1]
        async with await asyncio.start_server(_echo, sock=listening):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(LOOPBACK, port)
            reader, writer = await wire.reach(port)
            wire.become(loses=0.1, delays_s=0.001)
            for _ in range(PIECES):
                writer.write(PIECE)
                assert await reader.readexactly(len(PIECE)) == PIECE
            assert wire.lost
            wire.mend()
            writer.close()
            await writer.wait_closed()
