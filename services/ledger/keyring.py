"""The keys of the openings in the clear, in memory only: made in blocks, given out once, destroyed singly.

Invariants:
- a data key is given out once, by the process that made its block, and after the block is durable;
- what was destroyed is in no block again; a block's look-up key is made anew with every destruction, so
  that look-up tokens in an old copy of the database say nothing either.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.key_provider import (
    KEY_BYTES,
    KeyProvider,
    WrappedKey,
    key_missing,
    open_with,
    seal_with,
)
from ledger.key_store import HolderKey, KeyStore, StoredBlock
from shared.errors import NotReady, Unavailable

BLOCK_KEYS: Final = 1024
"""32 KB in one durable write: at 5,000 entries/s five writes more each second. What a process has not used
of a block when it ends is left."""
FETCH_AT: Final = BLOCK_KEYS // 2
"""From here on the next block is made in the background, so that nobody waits for its write."""
BLOCKS_KEPT: Final = 256
"""8 MB of blocks that were asked for last."""
TAKE_TRIES: Final = 5
"""Others may use up a block that was just made; nobody is that unlucky twice."""
ROTATE_TRIES: Final = 5
"""A second pass finds only what was made during the first."""
LOOKUP_KEYS_KEPT: Final = 100_000
"""10 MB; more than that many blocks hold 10^8 entries."""

_DESTROYED: Final = bytes(KEY_BYTES)


class DataKey(NamedTuple):
    """A key for one entry, with its place and the look-up key of its block."""

    block: int
    slot: int
    key: bytes
    lookup_key: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A block in the clear."""

    number: int
    holder: str
    generation: int
    content: bytes

    @property
    def lookup_key(self) -> bytes:
        """Give the key of the block's look-up tokens."""
        return self.content[:KEY_BYTES]

    def key(self, slot: int) -> bytes | None:
        """Give a data key; None when it was destroyed."""
        at = KEY_BYTES * (slot + 1)
        key = self.content[at : at + KEY_BYTES]
        return None if key == _DESTROYED else key


class _InUse:
    """The block of which a holder's next keys are taken."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.next_slot = 0
        self.following: Future[Block] | None = None

    @property
    def is_followed(self) -> bool:
        """Whether the next block is at hand."""
        following = self.following
        return following is not None and following.done() and following.exception() is None


class Keyring:
    """Unwraps and makes keys. Used by any thread. Raises Unavailable, or NotReady for a missing key."""

    def __init__(
        self,
        provider: KeyProvider,
        store: KeyStore,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._provider = provider
        self._store = store
        self._random = random
        self._in_use: dict[str, _InUse] = {}
        self._holder_keys: dict[tuple[str, int], bytes] = {}
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._lookup_keys: dict[int, tuple[int, bytes]] = {}
        self._one_at_a_time = threading.RLock()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="opening-keys")

    def close(self) -> None:
        """Forget the keys, and close the store."""
        self._background.shutdown(cancel_futures=True)
        self._in_use.clear()
        self._holder_keys.clear()
        self._blocks.clear()
        self._lookup_keys.clear()
        self._store.close()

    def take(self, holder: str) -> DataKey:
        """Give a data key that was never given before; waits for the store unless `has` said yes."""
        for _ in range(TAKE_TRIES):
            with self._one_at_a_time:
                taken = self._taken(holder)
            if taken is not None:
                return taken
            self.prepare(holder)
        raise Unavailable(
            "OPENING_KEYS_CHANGED", "the keys are used up faster than they are made; try again"
        )

    def has(self, holder: str, count: int) -> bool:
        """Whether so many keys can be taken without waiting for the store."""
        with self._one_at_a_time:
            using = self._in_use.get(holder)
            return using is not None and (
                BLOCK_KEYS - using.next_slot >= count or using.is_followed
            )

    def prepare(self, holder: str) -> None:
        """Have a next block at hand; waits for the store, with no lock held. Raises Unavailable."""
        with self._one_at_a_time:
            using = self._in_use.get(holder)
            if using is not None and using.following is None:
                using.following = self._background.submit(self._make_block, holder)
            following = None if using is None else using.following
        if following is None:
            made = _InUse(self._make_block(holder))
            with self._one_at_a_time:
                # Where another was quicker, this block is left unused.
                self._in_use.setdefault(holder, made)
            return
        try:
            following.result()
        except BaseException:
            with self._one_at_a_time:
                if using is not None and using.following is following:
                    using.following = None  # the next who asks tries again
            raise

    def _taken(self, holder: str) -> DataKey | None:
        """Take a key of the block in use, or of the one that follows; None when neither is at hand."""
        using = self._in_use.get(holder)
        if using is not None and using.next_slot == BLOCK_KEYS and using.is_followed:
            assert using.following is not None
            using = self._in_use[holder] = _InUse(using.following.result())
        if using is None or using.next_slot == BLOCK_KEYS:
            return None
        slot = using.next_slot
        using.next_slot += 1
        if using.next_slot == FETCH_AT and using.following is None:
            using.following = self._background.submit(self._make_block, holder)
        key = using.block.key(slot)
        assert key is not None, "a block in use is retired before one of its keys is destroyed"
        return DataKey(using.block.number, slot, key, using.block.lookup_key)

    def retire(self, blocks: Collection[int]) -> None:
        """Take no more keys from these blocks."""
        with self._one_at_a_time:
            for holder, using in list(self._in_use.items()):
                if using.block.number in blocks:
                    del self._in_use[holder]

    def block(self, number: int) -> Block | None:
        """Give a block as it is now; None when there is none."""
        stored = self._store.block(number)
        if stored is None:
            return None
        with self._one_at_a_time:
            kept = self._blocks.get(number)
            if kept is not None and kept.generation == stored.generation:
                self._blocks.move_to_end(number)
                return kept
        block = self._opened(stored)
        self._keep(block)
        return block

    def lookup_keys(self, holder: str) -> list[tuple[int, bytes]]:
        """Give each of a holder's blocks with its look-up key as it is now."""
        keys = []
        for number, generation in self._store.blocks_of(holder):
            known = self._lookup_keys.get(number)
            if known is None or known[0] != generation:
                block = self.block(number)
                if block is None:
                    continue
                if len(self._lookup_keys) >= LOOKUP_KEYS_KEPT:
                    self._lookup_keys.clear()
                known = self._lookup_keys[number] = (block.generation, block.lookup_key)
            keys.append((number, known[1]))
        return keys

    def require_keys(self) -> None:
        """Raise NotReady, naming the version, unless the provider opens every holder's key that is stored.

        Found out before anything is sealed: with a key that another replica lacks, or the other way round,
        one of them could not open what the other sealed.
        """
        require_opened(self._store, self._provider.unwrap)

    def holders(self) -> list[str]:
        """List who has keys."""
        return self._store.holders()

    def destroy(self, number: int, slots: Collection[int]) -> Block:
        """Destroy data keys and the block's look-up key, and give the block as it is then.

        What is left in the store's files goes with `forget`. Raises NotReady for a block that is lost.
        """
        self.retire([number])
        stored = self._store.block(number)
        if stored is None:
            raise key_missing(f"block {number} of the opening keys is not in the key store")
        content = bytearray(self._opened(stored).content)
        content[:KEY_BYTES] = self._random(KEY_BYTES)
        for slot in slots:
            at = KEY_BYTES * (slot + 1)
            content[at : at + KEY_BYTES] = _DESTROYED
        block = Block(number, stored.holder, stored.generation + 1, bytes(content))
        self._store.replace_block(self._sealed(block))
        self._keep(block)
        return block

    def forget(self) -> None:
        """Leave nothing of destroyed keys in the store's files, which are written anew: once at the end."""
        self._store.forget()

    def rotate(self) -> int:
        """Give every holder a new key under a new version of the provider's, and write all blocks anew.

        Entries and openings stay as they are. Killed in the middle, it is run again. Gives the version
        before which none is needed any more.
        """
        version = self._provider.rotate()
        for holder in self._store.holders():
            newest = self._new_holder_key(holder)
            for _ in range(ROTATE_TRIES):
                self._turn_blocks(holder, newest)
                # A block that a running service made meanwhile is still under the older key.
                if self._store.drop_holder_keys(holder, newest):
                    break
            else:
                raise Unavailable(
                    "OPENING_KEYS_CHANGED", "blocks are made faster than they are turned; try again"
                )
        self._store.forget()
        return version

    def destroy_older(self, version: int) -> int:
        """Destroy the provider's versions before one, and give how many there were.

        Raises NotReady while a holder's key needs one of them: a replica whose provider does not know the
        newer version yet may have made it since the rotation.
        """
        needed = self._store.oldest_version()
        if needed is not None and needed < version:
            raise NotReady(
                "OPENING_KEYS_IN_USE",
                f"a holder's key is still wrapped under version {needed}: nothing was destroyed. Give every "
                f"replica version {version} (openings.provider_keys), then rotate again",
            )
        older = [one for one in self._provider.versions() if one < version]
        for one in older:
            self._provider.destroy(one)
        return len(older)

    def _turn_blocks(self, holder: str, newest: int) -> None:
        for number, _ in self._store.blocks_of(holder):
            stored = self._store.block(number)
            if stored is not None and stored.holder_generation != newest:
                content = self._opened(stored).content
                turned = Block(number, holder, stored.generation + 1, content)
                self._store.replace_block(self._sealed(turned))

    def _make_block(self, holder: str) -> Block:
        number = int.from_bytes(self._random(8), "big") >> 1
        block = Block(number, holder, 0, self._random(KEY_BYTES * (BLOCK_KEYS + 1)))
        stored = self._sealed(block)
        self._store.add_block(stored)
        if self._store.holder_key(holder, stored.holder_generation) is None:
            # The keys were rotated in between; none of this block was given out yet.
            block = Block(number, holder, 1, block.content)
            self._store.replace_block(self._sealed(block))
        return block

    def _keep(self, block: Block) -> None:
        with self._one_at_a_time:
            self._blocks[block.number] = block
            self._blocks.move_to_end(block.number)
            while len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)

    def _sealed(self, block: Block) -> StoredBlock:
        generation, key = self._newest_key(block.holder)
        return StoredBlock(
            block=block.number,
            holder=block.holder,
            holder_generation=generation,
            generation=block.generation,
            sealed=seal_with(key, block.content, _bound_block(block.number, block.holder)),
        )

    def _opened(self, stored: StoredBlock) -> Block:
        key = self._holder_key(stored.holder, stored.holder_generation)
        content = open_with(key, stored.sealed, _bound_block(stored.block, stored.holder))
        return Block(stored.block, stored.holder, stored.generation, content)

    def _newest_key(self, holder: str) -> tuple[int, bytes]:
        stored = self._store.holder_key(holder)
        if stored is None:
            self._new_holder_key(holder)
            stored = self._store.holder_key(holder)
            assert stored is not None, "it was just added"
        return stored.generation, self._holder_key(holder, stored.generation)

    def _new_holder_key(self, holder: str) -> int:
        """Add a key; where another process was quicker, its key is the one."""
        for _ in range(ROTATE_TRIES):
            newest = self._store.holder_key(holder)
            generation = 1 if newest is None else newest.generation + 1
            key = self._random(KEY_BYTES)
            wrapped = self._provider.wrap(key, _bound_holder(holder, generation))
            self._store.add_holder_key(HolderKey(holder, generation, wrapped))
            # Whoever rotated in between may have looked for keys under the older version before this one
            # was there, and destroy that version: what is stored now may be lost, and protects nothing yet.
            if self._provider.newest() == wrapped.version:
                return generation
        raise Unavailable(
            "OPENING_KEYS_CHANGED", "the keys are rotated faster than they are made; try again"
        )

    def _holder_key(self, holder: str, generation: int) -> bytes:
        known = self._holder_keys.get((holder, generation))
        if known is not None:
            return known
        stored = self._store.holder_key(holder, generation)
        if stored is None:
            raise key_missing(f"key {generation} of {holder or 'nobody'} is not in the key store")
        key = self._provider.unwrap(stored.wrapped, _bound_holder(holder, generation))
        self._holder_keys[holder, generation] = key
        return key


def require_opened(store: KeyStore, unwrap: Callable[[WrappedKey, bytes], bytes]) -> None:
    """Raise NotReady, naming the version, unless every holder's key that is stored is opened."""
    for one in store.holder_keys():
        try:
            unwrap(one.wrapped, _bound_holder(one.holder, one.generation))
        except NotReady as error:
            raise key_missing(
                f"version {one.wrapped.version} of the opening keys, which wraps the key of "
                f"{one.holder or 'nobody'}, does not open it here: {error.message}"
            ) from error


def _bound_holder(holder: str, generation: int) -> bytes:
    return f"holder\0{holder}\0{generation}".encode()


def _bound_block(number: int, holder: str) -> bytes:
    return f"block\0{number}\0{holder}".encode()
