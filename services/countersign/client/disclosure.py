"""Openings, for who has a right to them; what is given is verified against the commitments on record."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import grpc

from countersign.client.config import ClientSettings
from countersign.client.reading import VerifiedReading, verify_openings
from countersign.client.verify import VerificationError, verify_receipt
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.disclosure_pb2_grpc import LedgerDisclosureServiceStub
from countersign.ledger.v1.entry_pb2 import Entry
from shared.registry import TrustRoots
from shared.rpc import call, call_stream, open_channel

SERVICE: Final = "countersign.ledger.v1.LedgerDisclosureService"
TIMEOUT_S: Final = 30.0
READING_TIMEOUT_S: Final = 3600.0
"""The ledger opens some thousand entries in a second, and gives at most 200,000."""
PAGE_SIZE: Final = 200


class DisclosureClient:
    """A connection to the ledger. Methods raise ServiceError, and VerificationError for false proofs."""

    def __init__(self, channel: grpc.aio.Channel, trust: TrustRoots) -> None:
        self._stub = LedgerDisclosureServiceStub(channel)
        self._trust = trust

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: ClientSettings) -> AsyncIterator["DisclosureClient"]:
        """A client that is closed at the end. Raises RegistryError for unreadable trust roots."""
        trust = TrustRoots.load(settings.trust_roots)
        async with open_channel(settings.ledger.address, settings.tls) as channel:
            yield cls(channel, trust)

    async def disclose(
        self, index: int, fields: Sequence[str], ground: pb.Ground
    ) -> pb.DiscloseResponse:
        """Openings of an entry: each opens a commitment of the entry, and the reading is on record."""
        response = await call(
            self._stub.Disclose,
            pb.DiscloseRequest(index=index, fields=fields, ground=ground),
            name=f"{SERVICE}/Disclose",
            timeout_s=TIMEOUT_S,
        )
        self._verify(response, index, fields, ground)
        return response

    def _verify(
        self, response: pb.DiscloseResponse, index: int, fields: Sequence[str], ground: pb.Ground
    ) -> None:
        entry = verify_receipt(response.entry_receipt, self._trust)
        if response.entry_receipt.index != index:
            raise VerificationError("DISCLOSURE_MISMATCH", "the proof is of another entry")
        if [one.field for one in response.openings] != list(fields):
            raise VerificationError("DISCLOSURE_MISMATCH", "other fields than were asked for")
        verify_openings(entry, response.openings)
        read = verify_receipt(response.reading_receipt, self._trust).opening_read
        if (read.entry_index, list(read.fields), read.authority) != (
            index,
            list(fields),
            ground.authority,
        ):
            raise VerificationError("READING_NOT_RECORDED", "this reading is not on record")

    async def read_requests(
        self, request: pb.ReadRequestsRequest, begun: Callable[[int], object] = lambda of: None
    ) -> AsyncIterator[tuple[pb.RecordedRequest, Entry]]:
        """Decisions or registrations with openings: each proved, each opening its own, the reading on record.

        `begun` is told first how many there are.
        """
        parts = call_stream(
            self._stub.ReadRequests,
            request,
            name=f"{SERVICE}/ReadRequests",
            timeout_s=READING_TIMEOUT_S,
        )
        reading: VerifiedReading | None = None
        async with contextlib.aclosing(parts):
            async for part in parts:
                if part.HasField("beginning"):
                    reading = VerifiedReading(part.beginning, request, self._trust)
                    begun(part.beginning.requests)
                for row in part.requests.requests:
                    if reading is None:
                        raise VerificationError("READING_NOT_RECORDED", "it has no beginning")
                    yield row, reading.entry(row)
        if reading is None:
            raise VerificationError("READING_NOT_RECORDED", "it has no beginning")
        reading.finish()

    async def request_expunge(
        self, indexes: Sequence[int], search_id: str, ground: pb.Ground
    ) -> pb.RequestExpungeResponse:
        """A request on record."""
        response = await call(
            self._stub.RequestExpunge,
            pb.RequestExpungeRequest(indexes=indexes, search_id=search_id, ground=ground),
            name=f"{SERVICE}/RequestExpunge",
            timeout_s=TIMEOUT_S,
        )
        asked = verify_receipt(response.receipt, self._trust).expunge_requested
        if list(asked.entry_indexes) != list(response.request.indexes):
            raise VerificationError("REQUEST_NOT_RECORDED", "this request is not on record")
        return response

    async def approve_expunge(
        self, requested_index: int, ground: pb.Ground
    ) -> pb.ApproveExpungeResponse:
        """An expungement on record."""
        response = await call(
            self._stub.ApproveExpunge,
            pb.ApproveExpungeRequest(requested_index=requested_index, ground=ground),
            name=f"{SERVICE}/ApproveExpunge",
            timeout_s=TIMEOUT_S,
        )
        done = verify_receipt(response.receipt, self._trust)
        if (
            not done.HasField("openings_expunged")
            or done.openings_expunged.requested_index != requested_index
        ):
            raise VerificationError("EXPUNGEMENT_NOT_RECORDED", "it is not on record")
        return response

    async def decline_expunge(
        self, requested_index: int, ground: pb.Ground
    ) -> pb.DeclineExpungeResponse:
        """A request declined or taken back, on record."""
        response = await call(
            self._stub.DeclineExpunge,
            pb.DeclineExpungeRequest(requested_index=requested_index, ground=ground),
            name=f"{SERVICE}/DeclineExpunge",
            timeout_s=TIMEOUT_S,
        )
        done = verify_receipt(response.receipt, self._trust)
        if (
            not done.HasField("expunge_declined")
            or done.expunge_declined.requested_index != requested_index
        ):
            raise VerificationError("DECLINE_NOT_RECORDED", "it is not on record")
        return response

    async def expunge_requests(self) -> list[pb.ExpungeRequest]:
        """All requests that the caller may approve or have made, newest first, as the server says."""
        found: list[pb.ExpungeRequest] = []
        request = pb.ListExpungeRequestsRequest(page_size=PAGE_SIZE)
        while True:
            page = await call(
                self._stub.ListExpungeRequests,
                request,
                name=f"{SERVICE}/ListExpungeRequests",
                timeout_s=TIMEOUT_S,
            )
            found += page.requests
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token
