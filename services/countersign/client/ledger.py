"""Calls to the ledger's reads, for whoever holds a certificate of the trust domain."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Final

import grpc

from countersign.client.config import ClientSettings
from countersign.ledger.v1 import ledger_pb2 as pb
from countersign.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from shared.rpc import call, open_channel

SERVICE: Final = "countersign.ledger.v1.LedgerService"
TIMEOUT_S: Final = 20.0
PAGE_SIZE: Final = 500


class LedgerClient:
    """A connection to the ledger. Every method raises ServiceError."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = LedgerServiceStub(channel)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: ClientSettings) -> AsyncIterator["LedgerClient"]:
        """A client that is closed at the end."""
        async with open_channel(settings.ledger.address, settings.tls) as channel:
            yield cls(channel)

    async def entry(self, index: int) -> pb.EntryRecord:
        """One entry."""
        response = await call(
            self._stub.GetEntry,
            pb.GetEntryRequest(index=index),
            name=f"{SERVICE}/GetEntry",
            timeout_s=TIMEOUT_S,
        )
        return response.record

    async def entries(self, wanted: pb.ListEntriesRequest) -> AsyncIterator[pb.EntryRecord]:
        """All entries that the request describes, page after page."""
        request = pb.ListEntriesRequest()
        request.CopyFrom(wanted)
        request.page_size = request.page_size or PAGE_SIZE
        while True:
            page = await call(
                self._stub.ListEntries, request, name=f"{SERVICE}/ListEntries", timeout_s=TIMEOUT_S
            )
            for record in page.records:
                yield record
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def leaves(self) -> AsyncIterator[bytes]:
        """The bytes of all entries, by index."""
        async for record in self.entries(pb.ListEntriesRequest()):
            yield record.leaf

    async def checkpoint(self) -> pb.GetCheckpointResponse:
        """The newest signed checkpoint."""
        return await call(
            self._stub.GetCheckpoint,
            pb.GetCheckpointRequest(),
            name=f"{SERVICE}/GetCheckpoint",
            timeout_s=TIMEOUT_S,
        )

    async def inclusion_proof(self, index: int, tree_size: int) -> pb.GetInclusionProofResponse:
        """A proof that an entry is in the tree of a size; 0 for the newest."""
        return await call(
            self._stub.GetInclusionProof,
            pb.GetInclusionProofRequest(index=index, tree_size=tree_size),
            name=f"{SERVICE}/GetInclusionProof",
            timeout_s=TIMEOUT_S,
        )

    async def consistency_proof(self, first_size: int, second_size: int) -> Sequence[bytes]:
        """A proof that the tree of the first size is the beginning of the tree of the second."""
        request = pb.GetConsistencyProofRequest(
            first_tree_size=first_size, second_tree_size=second_size
        )
        response = await call(
            self._stub.GetConsistencyProof,
            request,
            name=f"{SERVICE}/GetConsistencyProof",
            timeout_s=TIMEOUT_S,
        )
        return list(response.hashes)

    async def receipt(self, index: int, wait_s: float) -> pb.GetReceiptResponse:
        """An entry's receipt with witnesses, waited for so long at most."""
        request = pb.GetReceiptRequest(index=index)
        request.wait.FromTimedelta(timedelta(seconds=wait_s))
        return await call(
            self._stub.GetReceipt,
            request,
            name=f"{SERVICE}/GetReceipt",
            timeout_s=TIMEOUT_S + wait_s,
        )
