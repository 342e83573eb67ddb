"""The door's bound on what one caller may have in flight."""

from dataclasses import dataclass
from typing import cast

import pytest

from countersign.ledger.v1 import ledger_pb2 as pb
from shared.door import CALLS_OF_ONE_CALLER_MAX, Context, Door, caller
from shared.errors import NotAllowed, Overloaded
from shared.identity import SpiffeId


@dataclass
class CallOf:
    """As much of a gRPC context as the door looks at."""

    agency: str

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the TLS handshake found in the certificate."""
        uri = f"spiffe://countersign.test/agency/{self.agency}".encode()
        return {"x509_subject_alternative_name": [uri]}


def context_of(agency: str) -> Context:
    return cast(Context, CallOf(agency))


async def test_a_caller_with_too_many_calls_is_refused_and_no_other() -> None:
    guard = Door("countersign.test", {"/x": lambda _: True})
    request = pb.GetCheckpointRequest()
    busy = [
        guard._admitted("/x", request, context_of("CA0194200"))
        for _ in range(CALLS_OF_ONE_CALLER_MAX)
    ]
    for call in busy:
        call.__enter__()
    with (
        pytest.raises(Overloaded) as refused,
        guard._admitted("/x", request, context_of("CA0194200")),
    ):
        pass
    assert refused.value.reason == "CALLER_BUSY"
    assert refused.value.retry_after_s
    with guard._admitted("/x", request, context_of("CA0190000")):
        pass
    busy.pop().__exit__(None, None, None)
    with guard._admitted("/x", request, context_of("CA0194200")):
        pass


async def test_a_caller_past_its_limit_is_refused_before_its_request_is_looked_at() -> None:
    def limit(who: SpiffeId) -> None:
        raise Overloaded("AGENCY_CALLS_LIMIT", f"{who} calls too often", retry_after_s=1)

    guard = Door("countersign.test", {"/x": lambda who: who.name == "CA0194200"}, limit)
    unlawful = pb.ListEntriesRequest(page_size=2**31 - 1)
    with (
        pytest.raises(Overloaded) as refused,
        guard._admitted("/x", unlawful, context_of("CA0194200")),
    ):
        pass
    assert refused.value.reason == "AGENCY_CALLS_LIMIT"
    with (
        pytest.raises(NotAllowed),
        guard._admitted("/x", unlawful, context_of("CA0190000")),
    ):
        pass


async def test_who_calls_is_kept_for_the_call_and_no_longer() -> None:
    guard = Door("countersign.test", {"/x": lambda who: who.name == "CA0194200"})
    call = CallOf("CA0194200")
    context = cast(Context, call)
    with guard._admitted("/x", pb.GetCheckpointRequest(), context):
        call.agency = "CA0190000"
        assert caller(context).name == "CA0194200", "the certificate is read once"
        assert caller(context_of("CA0190000")).name == "CA0190000"
    assert caller(context).name == "CA0190000"
    with (
        pytest.raises(NotAllowed),
        guard._admitted("/x", pb.GetCheckpointRequest(), context),
    ):
        pass
    call.agency = "CA0194200"
    assert caller(context).name == "CA0194200", "who was turned away is kept neither"
