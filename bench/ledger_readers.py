"""Readers of a ledger, as a process of their own: pages with receipts, counts, tiles and bundles.

Started by `ledger_api.py` with a client's configuration; ends when its input does, and says what it read.
"""

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import aiohttp
import uvloop

from countersign.client.config import ClientSettings
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1 import query_pb2 as pb
from shared.errors import ServiceError
from tlog.tiles import TILE_WIDTH, TileName

QUERIES_PER_S: Final = 10
TILES_PER_S: Final = 100
SEED: Final = 1


async def query(client: LedgerQueryClient, read: Counter[str]) -> None:
    """Pages with receipts, and counts, by turns."""
    page = pb.QueryEntriesRequest(filter=pb.EntryFilter(agency="CA0194200"), with_receipts=True)
    groups = (pb.DIMENSION_ORIGIN_AGENCY, pb.DIMENSION_KIND)
    while True:
        try:
            await client.query(page)
            read["pages"] += 1
            await client.count(pb.EntryFilter(), groups)
            read["counts"] += 1
        except ServiceError:
            read["answers that the index is behind"] += 1
        await asyncio.sleep(2 / QUERIES_PER_S)


async def fetch(session: aiohttp.ClientSession, url: str, read: Counter[str]) -> None:
    """Checkpoints, tiles and bundles anywhere in the log."""
    draw = random.Random(SEED)
    while True:
        async with session.get(f"{url}/checkpoint") as response:
            size = int((await response.text()).split("\n")[1])
        for _ in range(10):
            full = size // TILE_WIDTH
            if full:
                level = draw.choice((None, 0))
                name = TileName(level, draw.randrange(full)).path
                async with session.get(f"{url}/{name}") as response:
                    response.raise_for_status()
                    await response.read()
                read["tiles and bundles"] += 1
            await asyncio.sleep(1 / TILES_PER_S)


async def run(config: Path) -> None:
    """Read until the input ends."""
    settings = ClientSettings.load(config)
    read: Counter[str] = Counter()
    async with (
        LedgerQueryClient.connect(settings) as client,
        aiohttp.ClientSession() as session,
    ):
        tasks = [
            asyncio.create_task(query(client, read)),
            asyncio.create_task(fetch(session, settings.ledger.url, read)),
        ]
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in done:
            one.result()
    sys.stdout.write(", ".join(f"{count} {what}" for what, count in read.items()) + "\n")


if __name__ == "__main__":
    uvloop.run(run(Path(sys.argv[1])))
