"""A ledger, called as the gateway of the component gateway-api-grpc: it reads public fields, and no more."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from google.protobuf.message import Message

from countersign.ledger.v1 import disclosure_pb2, event_pb2, query_pb2
from countersign.ledger.v1.append_pb2 import AppendRequest
from shared.errors import NotAllowed
from shared.rpc import open_channel
from support.disclosures import AUTHORITY, COMMISSION, REASON, LedgerUnderTest
from support.ledgers import LAPD, rejected
from support.reader_gateway import ALL, ROUTED, Gateway, identity

GROUND = disclosure_pb2.Ground(request_id=str(uuid4()), authority=AUTHORITY, reason=REASON)
OPENING = query_pb2.OpeningMatch(
    field="officer", value="lapd-40123", agency=LAPD, authority=AUTHORITY
)
LOOK_UP = query_pb2.EntryFilter(opening=OPENING)
REQUESTS: dict[str, Message] = {
    "ExportEntries": query_pb2.ExportEntriesRequest(format=event_pb2.EXPORT_FORMAT_JSON_LINES),
    "Append": AppendRequest(entries=[rejected()]),
    "Disclose": disclosure_pb2.DiscloseRequest(fields=["officer"], ground=GROUND),
    "ReadRequests": disclosure_pb2.ReadRequestsRequest(fields=["officer"], ground=GROUND),
    "RequestExpunge": disclosure_pb2.RequestExpungeRequest(indexes=[0], ground=GROUND),
    "ApproveExpunge": disclosure_pb2.ApproveExpungeRequest(requested_index=5, ground=GROUND),
    "DeclineExpunge": disclosure_pb2.DeclineExpungeRequest(requested_index=5, ground=GROUND),
}
"""Of methods that are not routed and take no empty request."""


@pytest.fixture(name="gateway")
async def _gateway(ledger: LedgerUnderTest) -> AsyncIterator[Gateway]:
    tls = ledger.nats.certificates.tls(identity().kind, identity().name)
    async with open_channel(f"127.0.0.1:{ledger.port}", tls) as channel:
        yield Gateway(channel)


async def test_what_is_routed_is_answered_and_leaves_the_ledger_as_it_was(
    gateway: Gateway, ledger: LedgerUnderTest
) -> None:
    before = len(await ledger.entries())
    for path in ROUTED:
        await gateway.first(path)
    assert len(await ledger.entries()) == before


async def test_what_is_not_routed_is_refused_or_would_be_an_entry(
    gateway: Gateway, ledger: LedgerUnderTest
) -> None:
    """Were a route added by mistake, the ledger would give nothing away all the same."""
    assert await ledger.request(COMMISSION, 0) == 5
    taken: dict[str, Message] = {}
    refused: dict[str, str] = {}
    for path in ALL.keys() - ROUTED:
        try:
            taken[ALL[path].name] = await gateway.first(path, REQUESTS.get(ALL[path].name))
        except NotAllowed as refusal:
            refused[ALL[path].name] = refusal.reason
    assert refused.pop("Append") == "CALLER_NOT_ALLOWED"
    assert set(refused.values()) == {"NOT_ENTITLED"}
    assert taken == {
        "ExportEntries": taken["ExportEntries"],
        "ListExpungeRequests": disclosure_pb2.ListExpungeRequestsResponse(),
    }
    (_, made), *others = await ledger.entries("export_made")
    assert made.export_made.caller == str(identity())
    assert not others


async def test_a_query_through_it_looks_through_no_openings(
    gateway: Gateway, ledger: LedgerUnderTest
) -> None:
    asked = {
        "QueryEntries": query_pb2.QueryEntriesRequest(filter=LOOK_UP),
        "CountEntries": query_pb2.CountEntriesRequest(filter=LOOK_UP),
        "WatchQuery": query_pb2.WatchQueryRequest(filter=LOOK_UP),
        "FindRouteShopping": query_pb2.FindRouteShoppingRequest(opening=OPENING),
    }
    assert {path.rpartition("/")[2] for path in ROUTED if "Query" in path} == asked.keys()
    for name, request in asked.items():
        with pytest.raises(NotAllowed) as refused:
            await gateway.first(f"/countersign.ledger.v1.LedgerQueryService/{name}", request)
        assert refused.value.reason == "NOT_ENTITLED"
    found = [made.request_rejected.caller for _, made in await ledger.entries("request_rejected")]
    assert found.count(str(identity())) == len(asked)
