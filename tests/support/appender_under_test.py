"""A writer with nothing around it, to be traced, starved and killed: `python FILE FOLDER COUNT`.

It appends one entry after the other and says of each, in one write, that it was acknowledged or why not.
In a folder with a file named `ballast`, the first refusal makes room by removing it.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from countersign.ledger.v1.append_pb2 import PendingEntry
from ledger.log import begin_log, opened
from ledger.sqlite_storage import SqliteDatabase
from shared.errors import ServiceError
from support.ledgers import SIGNER, assert_whole, complete, decided


def say(*words: object) -> None:
    os.write(1, (" ".join(str(word) for word in words) + "\n").encode())


def bare(number: int) -> PendingEntry:
    """An entry without openings, whose keys would be this process's own."""
    pending = decided(number)
    pending.ClearField("sensitive")
    return pending


async def append(folder: Path, count: int) -> None:
    """Appends searches from the size on that the log has."""
    database = SqliteDatabase(folder / "ledger.sqlite")
    async with opened(database.open_for_writing(), SIGNER) as log:
        number = log.sequencer.published.size
        last = number + count
        while number < last:
            try:
                (placed,) = await log.sequencer.append(complete(bare(number)))
            except ServiceError as error:
                say("refused", number, error.reason)
                with contextlib.suppress(FileNotFoundError):
                    (folder / "ballast").unlink()
                    continue
                return
            say("acknowledged", number, placed.index, placed.leaf.hex())
            number += 1


def main(folder: Path, count: int) -> None:
    """Begins the log if there is none, appends, and checks everything."""
    database = SqliteDatabase(folder / "ledger.sqlite")
    try:
        if not database.has_log():
            begin_log(database, SIGNER)
        asyncio.run(append(folder, count))
    except ServiceError as error:
        say("not opened", error.reason, error.message)
        return
    say("whole", assert_whole(database).checkpoint.size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
