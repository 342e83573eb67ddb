"""Makes the broker's orders and signs them, together with others that go to the same system in one turn.

What the ledger records together comes back together, so that under load several orders are made in one turn
of the event loop. One signature over all of them spares the connector a verification for each.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final

from broker.record import Record
from countersign.connector.v1.connector_pb2 import SearchOrder, SignedOrder
from countersign.type.v1.decision_pb2 import Receipt
from countersign.type.v1.search_pb2 import SealedPayload
from shared.clock import Clock, put_stamp
from shared.signing import ORDER_CONTEXT, SigningKey
from shared.together import ORDERS_CONTEXT, TOGETHER_MAX, sign_together

_ALONE: Final = b""


class Ordering:
    """Makes orders with one key."""

    def __init__(self, key: SigningKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._waiting: dict[str, list[tuple[bytes, asyncio.Future[bytes]]]] = {}

    async def order(
        self, record: Record, receipt: Receipt, bound: bytes, sealed_probe: SealedPayload
    ) -> bytes:
        """The bytes of a SignedOrder for a search that was permitted."""
        order = SearchOrder(search_id=record.search_id, system=record.system, bound_request=bound)
        order.decision_receipt.CopyFrom(receipt)
        order.deadline.CopyFrom(record.decision.deadline)
        put_stamp(order.issued_at, self._clock.now())
        data = order.SerializeToString()
        signed = SignedOrder(
            order=data, key_id=self._key.key_id, signature=self._key.sign(ORDER_CONTEXT, data)
        )
        signed.sealed_probe.CopyFrom(sealed_probe)
        together = await self._together(record.system, hashlib.sha256(data).digest())
        return signed.SerializeToString() + together

    async def _together(self, system: str, digest: bytes) -> bytes:
        """What is to follow the order's other fields: protobuf reads fields wherever they stand."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(system)
        if waiting is None:
            # No connector learns of orders to another system.
            waiting = self._waiting[system] = []
            loop.call_soon(self._sign_waiting, system)
        field: asyncio.Future[bytes] = loop.create_future()
        waiting.append((digest, field))
        return await field

    def _sign_waiting(self, system: str) -> None:
        waiting = self._waiting.pop(system)
        for start in range(0, len(waiting), TOGETHER_MAX):
            some = waiting[start : start + TOGETHER_MAX]
            try:
                field = self._field([digest for digest, _ in some])
            except Exception as error:  # noqa: BLE001  # whoever waits gets it, and waits no more
                for _, done in some:
                    if not done.done():
                        done.set_exception(error)
                continue
            for _, done in some:
                if not done.done():
                    done.set_result(field)

    def _field(self, digests: Sequence[bytes]) -> bytes:
        if len(digests) < 2:
            return _ALONE
        together = sign_together(self._key, ORDERS_CONTEXT, digests)
        return SignedOrder(together=together).SerializeToString()
