"""A duty that came with a decision is done: who may say so, that it is one entry, and who is turned away."""

import hashlib
import math
from collections.abc import Callable
from typing import cast

import protovalidate
import pytest

from broker.limits import LimitSettings
from countersign.broker.v1 import broker_pb2 as pb
from countersign.ledger.v1.event_pb2 import DISCHARGE_RESULT_DONE
from countersign.type.v1.decision_pb2 import Obligation
from shared.errors import NotAllowed, NotAuthentic, NotFound, Overloaded, ServiceError, Unavailable
from shared.rpc import Context
from support.brokers import LAPD, LASD, OFFICER, BrokerOnTheTable, own_case
from support.buses import PERMITTED, REFUSED

DUTIES = [
    Obligation(kind="report", parameters="outcome:30d", rule_id="LAPD-1", party=LAPD),
    Obligation(kind="notice", parameters="lead-only", rule_id="LAPD-1", party=LAPD),
    Obligation(kind="notice", parameters="lead-only", rule_id="LASD-1", party=LASD),
]
NARRATIVE = "Report 26-118 is in the case file."
SERVICE = "countersign.broker.v1.BrokerService"


class CallFrom:
    """As much of a gRPC context as tells the caller."""

    def __init__(self, agency: str, waits_s: float | None = None) -> None:
        self._waits_s = waits_s
        self._uri = f"spiffe://countersign.test/agency/{agency}".encode()

    def auth_context(self) -> dict[str, list[bytes]]:
        """What the TLS handshake found in the certificate."""
        return {"x509_subject_alternative_name": [self._uri]}

    def time_remaining(self) -> float | None:
        """None for as long as it takes."""
        return self._waits_s


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    broker = BrokerOnTheTable()
    broker.bus.policy.obligations = DUTIES
    return broker


async def submitted(broker: BrokerOnTheTable) -> str:
    prepared = broker.prepared()
    await broker.searching.submit(broker.call(), broker.request(prepared))
    return prepared.search_id


def request(
    broker: BrokerOnTheTable, search_id: str, number: int = 0
) -> pb.DischargeObligationRequest:
    """Says that one of the duties was done."""
    duty = DUTIES[number]
    return pb.DischargeObligationRequest(
        search_id=search_id,
        kind=duty.kind,
        rule_id=duty.rule_id,
        party=duty.party,
        officer_token=broker.provider.token(OFFICER, search_id),
        narrative=NARRATIVE,
    )


async def say(
    broker: BrokerOnTheTable,
    asked: pb.DischargeObligationRequest,
    agency: str = LAPD,
    waits_s: float | None = None,
) -> pb.DischargeObligationResponse:
    context = cast(Context, CallFrom(agency, waits_s))
    return await broker.servicer.DischargeObligation(asked, context)


@pytest.mark.parametrize("outcome", [PERMITTED, REFUSED])
@pytest.mark.promise(5)
async def test_a_duty_that_was_done_is_on_record_without_who_and_what(
    broker: BrokerOnTheTable, outcome: int
) -> None:
    """Duties of prohibitions come with the refused attempt."""
    broker.bus.policy.outcome = outcome  # type: ignore[assignment]  # an enum's number
    search_id = await submitted(broker)
    decided_index = len(broker.bus.ledger.entries) - 1
    broker.restart()
    asked = request(broker, search_id)
    told = await say(broker, asked)
    ledger = broker.bus.ledger
    entry = ledger.entries[-1]
    event = entry.obligation_discharged
    assert entry.search_id == search_id
    assert (event.decided_index, event.origin_agency) == (decided_index, LAPD)
    assert (event.kind, event.rule_id, event.party) == ("report", "LAPD-1", LAPD)
    assert event.result == DISCHARGE_RESULT_DONE
    assert event.officer_token_sha256 == hashlib.sha256(asked.officer_token.encode()).digest()
    assert ledger.sensitive[-1] == ["officer", "narrative"]
    assert told.receipt == ledger.receipt(len(ledger.entries) - 1)
    assert not told.existing
    for text in (OFFICER, NARRATIVE):
        assert text.encode() not in entry.SerializeToString()


@pytest.mark.promise(8)
async def test_what_is_said_again_is_the_same_entry_and_another_duty_is_another(
    broker: BrokerOnTheTable,
) -> None:
    search_id = await submitted(broker)
    broker.bus.ledger.kept_but_failed = 1
    with pytest.raises(Unavailable):
        await say(broker, request(broker, search_id))
    again = request(broker, search_id)
    again.narrative = "Another story."
    for one in (broker, broker.replica()):
        told = await say(one, again)
        assert told.existing
    assert broker.bus.ledger.kinds().count("obligation_discharged") == 1
    # Of two duties of a kind each is done for itself.
    for number in (1, 2):
        assert not (await say(broker, request(broker, search_id, number))).existing
    assert broker.bus.ledger.kinds().count("obligation_discharged") == 3


def _no_search(asked: pb.DischargeObligationRequest, broker: BrokerOnTheTable) -> str:
    asked.search_id = own_case().search_id
    asked.officer_token = broker.provider.token(OFFICER, asked.search_id)
    return "SEARCH_UNKNOWN"


def _other_kind(asked: pb.DischargeObligationRequest, broker: BrokerOnTheTable) -> str:
    asked.kind = "retain"
    return "OBLIGATION_NOT_IMPOSED"


def _other_rule(asked: pb.DischargeObligationRequest, broker: BrokerOnTheTable) -> str:
    asked.rule_id = "LASD-1"
    return "OBLIGATION_NOT_IMPOSED"


def _other_party(asked: pb.DischargeObligationRequest, broker: BrokerOnTheTable) -> str:
    asked.party = LASD
    return "OBLIGATION_NOT_IMPOSED"


def _other_token(asked: pb.DischargeObligationRequest, broker: BrokerOnTheTable) -> str:
    asked.officer_token = broker.provider.token(OFFICER, own_case().search_id)
    return "OFFICER_TOKEN_UNBOUND"


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "change", [_no_search, _other_kind, _other_rule, _other_party, _other_token]
)
async def test_what_nobody_owes_is_not_discharged_and_who_says_it_is_on_record(
    broker: BrokerOnTheTable,
    change: Callable[[pb.DischargeObligationRequest, BrokerOnTheTable], str],
) -> None:
    search_id = await submitted(broker)
    asked = request(broker, search_id)
    reason = change(asked, broker)
    with pytest.raises(ServiceError) as caught:
        await say(broker, asked)
    assert isinstance(caught.value, NotFound | NotAuthentic)
    assert caught.value.reason == reason
    entry = broker.bus.ledger.entries[-1]
    event = entry.request_rejected
    assert (event.rpc, event.reason) == (f"{SERVICE}/DischargeObligation", reason)
    assert event.caller == f"spiffe://countersign.test/agency/{LAPD}"
    assert "obligation_discharged" not in broker.bus.ledger.kinds()
    # Of an id that stands for no search nobody is to learn, or another agency could take it.
    assert entry.search_id == (search_id if asked.search_id == search_id else "")
    assert broker.bus.ledger.sensitive[-1] == ([] if entry.search_id else ["search_id"])


@pytest.mark.promise(8)
def test_the_search_has_one_spelling_and_nothing_is_without_a_bound() -> None:
    asked = pb.DischargeObligationRequest(
        search_id="4961f0b6-0000-4000-8000-00000000000a",
        kind="log",
        rule_id="LAPD-1",
        party=LAPD,
        officer_token="t",
    )
    assert not protovalidate.collect_violations(asked)
    asked.search_id = asked.search_id.upper()
    asked.kind, asked.rule_id, asked.party, asked.narrative = "", "", "x" * 65, "x" * 4001
    found = {str(one.proto.field) for one in protovalidate.collect_violations(asked)}
    assert len(found) == 5


@pytest.mark.promise(7)
async def test_another_agency_cannot_say_so_with_the_officers_token(
    broker: BrokerOnTheTable,
) -> None:
    search_id = await submitted(broker)
    with pytest.raises(NotAuthentic):
        await say(broker, request(broker, search_id), LASD)
    assert broker.bus.ledger.kinds()[-1] == "request_rejected"
    assert "obligation_discharged" not in broker.bus.ledger.kinds()


@pytest.mark.promise(1)
async def test_whom_the_registry_has_not_as_an_officer_discharges_nothing_on_record(
    broker: BrokerOnTheTable,
) -> None:
    """The provider vouches for them still: it was not told that they went."""
    search_id = await submitted(broker)
    broker.bus.policy.let_go.add(OFFICER)
    with pytest.raises(NotAllowed) as caught:
        await say(broker, request(broker, search_id))
    assert caught.value.reason == "OFFICER_UNKNOWN"
    assert broker.bus.ledger.entries[-1].request_rejected.reason == "OFFICER_UNKNOWN"
    assert "obligation_discharged" not in broker.bus.ledger.kinds()
    broker.bus.policy.let_go.clear()
    assert not (await say(broker, request(broker, search_id))).existing


@pytest.mark.promise(1)
@pytest.mark.parametrize("lacks", ["the service", "the words of this release"])
async def test_nothing_is_discharged_while_nobody_says_who_is_an_officer(
    broker: BrokerOnTheTable, lacks: str
) -> None:
    search_id = await submitted(broker)
    entries = len(broker.bus.ledger.entries)
    broker.bus.policy.down = lacks == "the service"
    broker.bus.policy.is_of_the_last_release = not broker.bus.policy.down
    with pytest.raises(Unavailable) as caught:
        await say(broker, request(broker, search_id))
    assert caught.value.reason == "POLICY_UNAVAILABLE"
    assert len(broker.bus.ledger.entries) == entries


@pytest.mark.parametrize("waits_s", [None, 0.5])
async def test_nobody_is_asked_later_than_the_caller_waits(
    broker: BrokerOnTheTable, waits_s: float | None
) -> None:
    await say(broker, request(broker, await submitted(broker)), waits_s=waits_s)
    begun_within_s = broker.bus.begun_within_s
    assert (begun_within_s["policy.evaluate"] or math.inf) <= (waits_s or math.inf)
    assert (begun_within_s["ledger.append"] or math.inf) <= (waits_s or math.inf)


async def test_an_agency_that_discharges_too_often_waits_and_its_searches_do_not() -> None:
    broker = BrokerOnTheTable(
        limit_settings=LimitSettings(agency_searches_per_minute=60, agency_searches_burst=2)
    )
    broker.bus.policy.obligations = DUTIES
    asked = request(broker, await submitted(broker))
    for _ in range(2):
        await say(broker, asked)
    happened, entries = list(broker.bus.happened), len(broker.bus.ledger.entries)
    with pytest.raises(Overloaded) as caught:
        await say(broker, asked)
    assert caught.value.reason == "AGENCY_DISCHARGES_LIMIT"
    assert (broker.bus.happened, len(broker.bus.ledger.entries)) == (happened, entries)
    await submitted(broker)
    assert caught.value.retry_after_s
    broker.clock.advance(seconds=caught.value.retry_after_s)
    assert (await say(broker, asked)).existing
