"""Calls to the broker, with deadlines, retries of what may be retried, and one trace for each."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import grpc
import jwt

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import BrokerServiceStub
from countersign.client.config import ClientSettings
from countersign.client.prepare import PreparedSearch, prepare
from countersign.client.verify import OpenedAnswer, open_answer
from countersign.type.v1.decision_pb2 import Obligation
from countersign.type.v1.search_pb2 import SearchFacts
from shared.backoff import Backoff
from shared.errors import NotAuthentic, TooLate, Unavailable
from shared.registry import TrustRoots
from shared.rpc import CHANNEL_OPTIONS, MESSAGE_BYTES_MAX, call, call_stream, open_channel

SERVICE: Final = "countersign.broker.v1.BrokerService"
TIMEOUT_S: Final = 20.0
"""Covers the broker's own waits for policy, ledger and bus with one retry of each."""
WAIT_S: Final = 300.0
LONG_POLL_S: Final = 30.0
"""How long the broker holds one answer back; a broken connection is noticed at the next."""
AGAIN: Final = Backoff(first_s=1.0, most_s=10.0)
"""Before a broker that went away is asked again for a search; longer, where it says so itself."""
SUBMIT_ATTEMPTS: Final = 4
"""A submission is idempotent by its id, so it may be sent again when the broker was unreachable."""

RETRIES: Final = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": SUBMIT_ATTEMPTS,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # A server that stops drops calls that reach it in that moment with CANCELLED.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}
"""Every RPC of the broker may be repeated: submission by its id, withdrawal because it ends once,
a discharge because it is one entry."""
RETRYING: Final = (
    *CHANNEL_OPTIONS,
    ("grpc.service_config", json.dumps(RETRIES)),
    # Of a request that is larger gRPC keeps nothing to send again: with 256 KiB no photograph is retried.
    ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX + 64 * 1024),
)
"""Options of a channel to the broker."""

END_STATES: Final = frozenset(
    {
        pb.SEARCH_STATE_REFUSED,
        pb.SEARCH_STATE_ANSWERED,
        pb.SEARCH_STATE_FAILED,
        pb.SEARCH_STATE_EXPIRED,
        pb.SEARCH_STATE_WITHDRAWN,
    }
)


def officer_of(token: str) -> str:
    """The officer that a token names, unverified: the broker verifies, we only look.

    Raises NotAuthentic when it names none.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return str(claims["sub"])
    except KeyError as error:
        raise NotAuthentic(
            "OFFICER_TOKEN_INVALID",
            "the officer token lacks the claim sub, which names the officer",
        ) from error
    except (jwt.InvalidTokenError, RecursionError) as error:
        raise NotAuthentic(
            "OFFICER_TOKEN_INVALID",
            "the officer token is no JWT: pass on the ID token as the identity provider issued it",
        ) from error


class Client:
    """An agency system's connection to the broker."""

    def __init__(self, channel: grpc.aio.Channel, trust: TrustRoots) -> None:
        self._stub = BrokerServiceStub(channel)
        self.trust = trust

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, settings: ClientSettings) -> AsyncIterator["Client"]:
        """A client that is closed at the end.

        Raises RegistryError for unreadable trust roots, and SettingsError for a configuration that is
        only good for reading the ledger.
        """
        settings.need("agency", "broker")
        trust = TrustRoots.load(settings.trust_roots)
        async with open_channel(settings.broker.address, settings.tls, RETRYING) as channel:
            yield cls(channel, trust)

    def prepare(self, facts: SearchFacts, picture: bytes) -> PreparedSearch:
        """See `prepare.prepare`."""
        return prepare(facts, picture, self.trust)

    def open_answer(
        self, prepared: PreparedSearch, search: pb.Search, officer: str
    ) -> OpenedAnswer:
        """See `verify.open_answer`."""
        return open_answer(prepared, search, officer, self.trust)

    async def check(self, facts: SearchFacts, officer_token: str) -> pb.CheckSearchResponse:
        """Asks what every party would say. Sends nothing; is recorded. Raises ServiceError."""
        request = pb.CheckSearchRequest(facts=facts, officer_token=officer_token)
        return await call(
            self._stub.CheckSearch, request, name=f"{SERVICE}/CheckSearch", timeout_s=TIMEOUT_S
        )

    async def submit(
        self, prepared: PreparedSearch, officer_token: str, wait_s: float = 0
    ) -> pb.Search:
        """Submits, or submits again; gives the search once it has ended within `wait_s`.

        Without a wait, or when it passes (60 s at most), the search may be pending: `wait` for it.
        Raises ServiceError.
        """
        request = prepared.request(officer_token)
        if wait_s:
            request.wait.FromMilliseconds(int(wait_s * 1000))
        response = await call(
            self._stub.SubmitSearch,
            request,
            name=f"{SERVICE}/SubmitSearch",
            timeout_s=TIMEOUT_S + wait_s,
        )
        return response.search

    async def get(self, search_id: str, wait_s: float = 0) -> pb.Search:
        """The search as it stands, or once it has ended within `wait_s` (at most 60 s).

        Raises ServiceError.
        """
        request = pb.GetSearchRequest(search_id=search_id)
        if wait_s:
            request.wait.FromMilliseconds(int(wait_s * 1000))
        response = await call(
            self._stub.GetSearch, request, name=f"{SERVICE}/GetSearch", timeout_s=TIMEOUT_S + wait_s
        )
        return response.search

    async def watch(
        self, search_id: str, timeout_s: float = WAIT_S
    ) -> AsyncGenerator[pb.Search, None]:
        """The search now and at each change, until it has ended. Raises ServiceError."""
        responses = call_stream(
            self._stub.WatchSearch,
            pb.WatchSearchRequest(search_id=search_id),
            name=f"{SERVICE}/WatchSearch",
            timeout_s=timeout_s,
        )
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield response.search

    async def wait(self, search_id: str, timeout_s: float = WAIT_S) -> pb.Search:
        """The search once it has ended; asks again when the broker went away. Raises ServiceError."""
        failures = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        search = await self.get(search_id, wait_s=min(LONG_POLL_S, timeout_s))
                        if search.state in END_STATES:
                            return search
                        failures = 0
                    except Unavailable as error:
                        failures += 1
                        await asyncio.sleep(max(error.retry_after_s or 0, AGAIN.wait_s(failures)))
        except TimeoutError:
            raise TooLate(
                "STILL_PENDING",
                f"search {search_id} has not ended within {timeout_s:.0f} s; watch it again",
            ) from None

    async def cancel(self, search_id: str) -> pb.Search:
        """Withdraws the search, unless it has ended. Raises ServiceError."""
        request = pb.CancelSearchRequest(search_id=search_id)
        response = await call(
            self._stub.CancelSearch, request, name=f"{SERVICE}/CancelSearch", timeout_s=TIMEOUT_S
        )
        return response.search

    async def discharge(
        self, search_id: str, duty: Obligation, officer_token: str, narrative: str = ""
    ) -> pb.DischargeObligationResponse:
        """Records that a duty of the decision was done; the first to say so stands. Raises ServiceError."""
        request = pb.DischargeObligationRequest(
            search_id=search_id,
            kind=duty.kind,
            rule_id=duty.rule_id,
            party=duty.party,
            officer_token=officer_token,
            narrative=narrative,
        )
        return await call(
            self._stub.DischargeObligation,
            request,
            name=f"{SERVICE}/DischargeObligation",
            timeout_s=TIMEOUT_S,
        )

    async def list(self, page_size: int = 0, page_token: str = "") -> pb.ListSearchesResponse:
        """One page of the agency's searches, newest first. Raises ServiceError."""
        request = pb.ListSearchesRequest(page_size=page_size, page_token=page_token)
        return await call(
            self._stub.ListSearches, request, name=f"{SERVICE}/ListSearches", timeout_s=TIMEOUT_S
        )

    async def systems(self, page_size: int = 0, page_token: str = "") -> pb.ListSystemsResponse:
        """One page of the systems. Raises ServiceError."""
        request = pb.ListSystemsRequest(page_size=page_size, page_token=page_token)
        return await call(
            self._stub.ListSystems, request, name=f"{SERVICE}/ListSystems", timeout_s=TIMEOUT_S
        )
