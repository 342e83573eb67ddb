"""One of several processes on one database: it stands by until it may write, and then writes.

The database says who may (see `ledger.postgres_storage`). A writer that has lost its turn ends its process,
and comes back as a standby: it never has to find out what it still may believe of what it knew.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from ledger.reading import StorageFailed
from ledger.storage import Database, Storage
from shared.errors import NotReady, ServiceError
from shared.rpc import RunningServer

log = logging.getLogger(__name__)

TRY_EVERY_S: Final = 0.3
"""How often a standby asks for the writer's lock. With the server's bound on silence it takes over within
five seconds, and much sooner when the writer's connection is closed."""

LOOK_EVERY_S: Final = 10.0
"""How often a standby looks whether it has what a writer needs, so that its lack is known before its turn."""
LOOK_AGAIN_S: Final = 2.0
"""The same while it lacks something."""
KEYS_LACK: Final = "OPENING_KEY"
"""With which the reasons begin that are about the keys of openings."""


class Serving(Protocol):
    """What serves, as a standby or as the writer."""

    @property
    def server(self) -> RunningServer:
        """Its gRPC server."""

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on."""

    @property
    def is_ready(self) -> bool:
        """Whether it can do its work now."""


class Replica:
    """This process, in whichever of the two parts it plays."""

    def __init__(
        self,
        database: Database,
        standing_by: Callable[[], AbstractAsyncContextManager[Serving]],
        writing: Callable[[Storage], AbstractAsyncContextManager[Serving]],
        require_keys: Callable[[], None],
        *,
        only_read: bool,
    ) -> None:
        """`require_keys` raises NotReady while what a writer seals could not be opened here, or elsewhere."""
        self._database = database
        self._standing_by = standing_by
        self._writing = writing
        self._require_keys = require_keys
        self._only_read = only_read
        self._lacks: ServiceError | None = None
        self._look_at = 0.0
        self._serving: Serving | None = None
        self._ready = asyncio.Event()
        self.writes = asyncio.Event()
        """Set when this replica writes."""
        self.ended = asyncio.Event()

    @property
    def server(self) -> RunningServer:
        """The server of the part that it plays now."""
        assert self._serving is not None
        return self._serving.server

    @property
    def is_ready(self) -> bool:
        """Whether it can do now what its part is."""
        return self._serving is not None and self._serving.is_ready

    async def _live(self) -> None:
        try:
            storage = await self._try()
            if storage is None:
                async with self._standing_by() as serving:
                    self._play(serving)
                    storage = await self._turn(serving)
            if storage is not None:
                log.info("writing from now on")
                async with self._writing(storage) as serving:
                    self.writes.set()
                    self._play(serving)
                    await serving.ended.wait()
        finally:
            self.ended.set()

    def _play(self, serving: Serving) -> None:
        self._serving = serving
        self._ready.set()

    async def _turn(self, serving: Serving) -> Storage | None:
        """Wait for the lock; None when the standby cannot go on."""
        ended = asyncio.create_task(serving.ended.wait())
        try:
            while not ended.done():
                if (storage := await self._try()) is not None:
                    return storage
                await asyncio.wait([ended], timeout=TRY_EVERY_S)
            return None
        finally:
            ended.cancel()

    async def _try(self) -> Storage | None:
        """Take the lock if nobody has it; raises NotReady when this can never be the writer."""
        if self._only_read or not await self._has_keys():
            return None
        try:
            return await asyncio.to_thread(self._database.open_for_writing)
        except StorageFailed as error:
            log.warning("the store does not answer", exc_info=error)
        except NotReady as error:
            if error.reason not in ("LEDGER_LOCKED", "LEDGER_STANDBY"):
                raise
        return None

    async def _has_keys(self) -> bool:
        """Whether it has the keys that it would write with; says so when that changes."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return self._lacks is None
        before, self._lacks = self._lacks, None
        try:
            await asyncio.to_thread(self._require_keys)
        except (ServiceError, StorageFailed) as error:
            # What is not about keys is found out, and told, by the attempt to take the lock.
            if isinstance(error, ServiceError) and error.reason.startswith(KEYS_LACK):
                self._lacks = error
        self._look_at = now + (LOOK_EVERY_S if self._lacks is None else LOOK_AGAIN_S)
        if self._lacks is None:
            if before is not None:
                log.info("has its keys again, and may write")
        elif before is None or before.message != self._lacks.message:
            fields = {"reason": self._lacks.reason, "why": self._lacks.message}
            log.error("stands by only, and will not take over", extra={"fields": fields})
        return self._lacks is None


@contextlib.asynccontextmanager
async def replica(one: Replica) -> AsyncIterator[Replica]:
    """Run it; raises what kept it from serving at all."""
    living = asyncio.create_task(one._live())
    ready = asyncio.create_task(one._ready.wait())
    try:
        await asyncio.wait([living, ready], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            living.result()
        living.add_done_callback(_say_why)
        yield one
    finally:
        ready.cancel()
        living.cancel()
        await asyncio.gather(ready, living, return_exceptions=True)


def _say_why(living: "asyncio.Task[None]") -> None:
    if living.cancelled() or (error := living.exception()) is None:
        return
    if isinstance(error, ServiceError):
        fields = {"reason": error.reason, "why": error.message}
        log.error("cannot go on", extra={"fields": fields})
    else:
        log.critical("failed", exc_info=error)
