"""Whoever follows documents may be given up on, and the ledger may fail meanwhile."""

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from registry.public import PublicDocuments, PublicRegistry
from shared.errors import Unavailable
from shared.following import Following, Reader, Source
from shared.registry import TrustRoots
from support.ledgers import ORIGIN

TRUST = TrustRoots(log_verifier_keys=("not used here",), broker_verify_keys=(bytes(32),))
READER = Reader[PublicDocuments, PublicRegistry](
    "ledger.list_public_documents", "REGISTRY_STALE", PublicDocuments.made, ()
)


class BusThatFailsLate:
    """Takes a request, and fails when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.fails = asyncio.Event()

    async def request(self, *_: object) -> None:
        """Never answers."""
        self.asked.set()
        await self.fails.wait()
        raise Unavailable("BUS_UNAVAILABLE", "the ledger is away")


async def test_a_caller_that_has_gone_leaves_no_stack_in_the_log() -> None:
    """It would look like a bug, each time that somebody gives up while the ledger restarts."""
    told: list[str] = []

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append(context["message"])

    asyncio.get_running_loop().set_exception_handler(tell)
    bus = BusThatFailsLate()
    following = Following(bus, PublicDocuments(TRUST, ORIGIN), Source((), "nobody"), READER)  # type: ignore[arg-type]  # stands in
    asking = asyncio.create_task(following.catch_up())
    await bus.asked.wait()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    bus.fails.set()
    with pytest.raises(Unavailable):  # one at a time: the other has ended by now
        await following.catch_up()
    gc.collect()
    assert told == []
