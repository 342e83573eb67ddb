"""Puts documents on record, each after the one that is known to be the last."""

from countersign.ledger.v1 import append_pb2 as pb
from countersign.type.v1.decision_pb2 import Receipt
from shared.bus import Bus
from shared.following import TIMEOUT_S


class Recording:
    """The policy service's pen."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def after(self, head: int | None, pending: pb.PendingEntry) -> Receipt | None:
        """The receipt of the document; None when another came first. Raises ServiceError."""
        document = pb.PendingEntry()
        document.CopyFrom(pending)
        document.entry.ClearField("previous_document")
        if head is not None:
            document.entry.previous_document = head
        response = await self._bus.request(
            "ledger.publish",
            pb.PublishDocumentRequest(document=document),
            pb.PublishDocumentResponse,
            TIMEOUT_S,
        )
        return None if response.appended.existing else response.appended.receipt
