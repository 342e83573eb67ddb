"""What disclosing openings and destroying them share: who may, the vault on its thread, the record."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from ledger.archive import Archive
from ledger.entry import Completer, Opening
from ledger.reading import StorageFailed
from ledger.rights import People, Person, Rights
from ledger.sequencer import Placed, Sequencer
from ledger.tree import unreadable
from ledger.vault import OpeningDamaged, Vault
from shared.clock import Clock
from shared.errors import Broken, Conflict

Answer = TypeVar("Answer")


class Custody:
    """The openings, and what is asked before anything is done with them. Used on the loop."""

    def __init__(
        self,
        *,
        rights: Rights,
        people: People,
        vault: Vault,
        archive: Archive,
        sequencer: Sequencer,
        completer: Completer,
        clock: Clock,
    ) -> None:
        self.rights = rights
        self.people = people
        self.vault = vault
        self.archive = archive
        self.clock = clock
        self._sequencer = sequencer
        self._completer = completer
        self._thread = ThreadPoolExecutor(1, "ledger-vault")

    def close(self) -> None:
        """Finish what the vault is doing."""
        self._thread.shutdown(cancel_futures=True)

    async def record(self, pending: PendingEntry) -> Placed:
        """Put on record what is about to be done, or the entry that bears its key already."""
        (placed,) = await self._sequencer.append(await self._completer.completed([pending]))
        return placed

    async def openings_of(self, indexes: Sequence[int]) -> Mapping[int, Sequence[Opening]]:
        """Open entries, for what the ledger itself needs of them: who reads them, asks elsewhere."""
        if not indexes:
            return {}
        return await self.in_vault(lambda: {index: self.vault.open(index) for index in indexes})

    async def in_vault(self, work: Callable[[], Answer]) -> Answer:
        """Have something done in the vault, on its thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except StorageFailed as error:
            raise unreadable() from error
        except OpeningDamaged as error:
            raise Broken("OPENING_DAMAGED", "an opening is not what was sealed") from error


def stated(entry: Entry, person: Person, ground: pb.Ground, key: str) -> PendingEntry:
    """An entry with a commitment to why, and to the officer who asks."""
    pending = PendingEntry(entry=entry, idempotency_key=key)
    pending.sensitive.add(field="reason", value=ground.reason)
    pending.sensitive.add(field="officer", value=person.officer)
    return pending


def used(ground: pb.Ground) -> Conflict:
    """The refusal of a request that bears the id of an earlier one."""
    return Conflict("REQUEST_ID_USED", f"request {ground.request_id} was made already")
