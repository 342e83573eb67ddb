"""The broker's order of steps: nothing leaves unrecorded, and one id is one search."""

import asyncio
import hashlib

import protovalidate
import pytest
from google.protobuf.message import Message

from broker.record import is_permitted
from countersign.broker.v1 import broker_pb2 as pb
from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, VerdictOutcome
from shared.errors import Conflict, InvalidRequest, NotAllowed, NotAuthentic, Unavailable
from shared.registry import SystemKeys
from shared.sealing import PrivateKey
from support.brokers import LASD, OFFICER, BrokerOnTheTable, own_case
from support.buses import PERMITTED, REFUSED
from support.waiting import WAIT_S_MAX

UNKNOWN_FIELD = b"\xfa\x7d\x05a pic"
"""Field 2015 of a release to come."""


@pytest.fixture(name="broker")
def _broker() -> BrokerOnTheTable:
    return BrokerOnTheTable()


@pytest.mark.promise(1)
async def test_the_decision_is_durable_before_the_order_leaves(broker: BrokerOnTheTable) -> None:
    prepared = broker.prepared()
    search = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert search.state == pb.SEARCH_STATE_PENDING
    assert broker.bus.happened == [
        "policy.evaluate",
        "ledger.append",
        f"orders.lacris.{prepared.search_id}",
    ]
    assert broker.order(prepared.search_id).decision_receipt == search.decided


@pytest.mark.promise(1)
@pytest.mark.parametrize("failure", ["lost", "kept_but_failed"])
async def test_no_order_leaves_when_the_ledger_did_not_answer(
    broker: BrokerOnTheTable, failure: str
) -> None:
    setattr(broker.bus.ledger, failure, 1)
    with pytest.raises(Unavailable):
        await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert not broker.bus.published


@pytest.mark.promise(1)
@pytest.mark.parametrize("failure", ["lost", "kept_but_failed"])
async def test_a_retry_after_a_failed_append_completes_once(
    broker: BrokerOnTheTable, failure: str
) -> None:
    prepared = broker.prepared()
    setattr(broker.bus.ledger, failure, 1)
    with pytest.raises(Unavailable):
        await broker.searching.submit(broker.call(), broker.request(prepared))
    search = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert search.state == pb.SEARCH_STATE_PENDING
    assert broker.bus.ledger.kinds() == ["search_decided"]
    assert list(broker.bus.published) == [f"orders.lacris.{prepared.search_id}"]


async def test_a_retry_after_the_bus_failed_sends_the_recorded_order(
    broker: BrokerOnTheTable,
) -> None:
    prepared = broker.prepared()
    broker.bus.publishing_fails = 1
    with pytest.raises(Unavailable):
        await broker.searching.submit(broker.call(), broker.request(prepared))
    broker.restart()
    await broker.searching.submit(broker.call(), broker.request(prepared))
    assert broker.bus.ledger.kinds() == ["search_decided"]
    assert broker.order(prepared.search_id).decision_receipt.index == 0


@pytest.mark.promise(1)
@pytest.mark.promise(3)
async def test_without_policy_nothing_is_sent_and_that_is_recorded(
    broker: BrokerOnTheTable,
) -> None:
    prepared = broker.prepared()
    broker.bus.policy.down = True
    with pytest.raises(Unavailable) as raised:
        await broker.searching.submit(broker.call(), broker.request(prepared))
    assert raised.value.reason == "POLICY_UNAVAILABLE"
    assert broker.bus.ledger.kinds() == ["search_undecided"]
    assert not broker.bus.published
    broker.bus.policy.down = False
    search = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert search.state == pb.SEARCH_STATE_PENDING


@pytest.mark.promise(1)
async def test_a_refusal_is_recorded_and_nothing_is_sent(broker: BrokerOnTheTable) -> None:
    broker.bus.policy.outcome = REFUSED
    search = await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    assert search.state == pb.SEARCH_STATE_REFUSED
    assert search.decided.leaf
    assert not search.decision.HasField("deadline")
    assert broker.bus.ledger.kinds() == ["search_decided"]
    assert not broker.bus.published


@pytest.mark.parametrize("dry", [False, True])
async def test_what_was_decided_without_the_newest_document_is_decided_anew(
    broker: BrokerOnTheTable, dry: bool
) -> None:
    ledger, policy = broker.bus.ledger, broker.bus.policy
    policy.documents, ledger.documents, ledger.documents_to_come = 3, 7, 2
    request = broker.request(broker.prepared())
    if dry:
        checking = pb.CheckSearchRequest(facts=request.facts, officer_token=request.officer_token)
        answered = await broker.searching.check(broker.call(rpc="CheckSearch"), checking)
        assert answered.decision.documents_index == 9
    else:
        search = await broker.searching.submit(broker.call(), request)
        assert search.decision.decision.documents_index == 9
    assert ledger.kinds() == ["search_checked" if dry else "search_decided"]


@pytest.mark.promise(1)
async def test_a_search_that_no_decision_keeps_up_with_is_on_record_as_undecided(
    broker: BrokerOnTheTable,
) -> None:
    ledger, policy = broker.bus.ledger, broker.bus.policy
    policy.documents, ledger.documents, ledger.documents_to_come = 3, 7, 1000
    request = broker.request(broker.prepared())
    with pytest.raises(Unavailable) as raised:
        await broker.searching.submit(broker.call(), request)
    assert raised.value.reason == "POLICY_UNAVAILABLE"
    assert ledger.kinds() == ["search_undecided"]
    assert not broker.bus.published
    ledger.documents_to_come = 0
    search = await broker.searching.submit(broker.call(), request)
    assert search.state == pb.SEARCH_STATE_PENDING


async def test_the_same_id_again_is_the_same_search(broker: BrokerOnTheTable) -> None:
    prepared = broker.prepared()
    first = await broker.searching.submit(broker.call(), broker.request(prepared))
    again = await broker.searching.submit(broker.call(), broker.request(prepared))
    broker.restart()
    after_restart = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert first == again == after_restart
    assert broker.bus.ledger.kinds() == ["search_decided"]


async def test_submissions_of_one_id_at_once_make_one_search(broker: BrokerOnTheTable) -> None:
    prepared = broker.prepared()
    calls = [broker.searching.submit(broker.call(), broker.request(prepared)) for _ in range(5)]
    searches = await asyncio.gather(*calls)
    assert all(search == searches[0] for search in searches)
    assert broker.bus.ledger.kinds() == ["search_decided"]


async def test_a_search_that_another_broker_ended_is_not_sent_again(
    broker: BrokerOnTheTable,
) -> None:
    prepared, other = broker.prepared(), broker.replica()
    await broker.searching.submit(broker.call(), broker.request(prepared))
    decided = await other.ledger.look_up(prepared.search_id)
    assert decided is not None
    await other.ending.withdraw(decided)
    assert not broker.bus.published, "a withdrawn search's order is purged"
    again = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert again.state == pb.SEARCH_STATE_WITHDRAWN
    sent = [what for what in broker.bus.happened if what.startswith("orders.")]
    assert len(sent) == 1, "not for a moment: a connector could take it before it is purged"


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_same_id_with_other_content_is_a_conflict_on_record(
    broker: BrokerOnTheTable, restarted: bool
) -> None:
    facts = own_case()
    await broker.searching.submit(broker.call(), broker.request(broker.prepared(facts)))
    if restarted:
        broker.restart()
    facts.narrative = "Another story."
    with pytest.raises(Conflict) as raised:
        await broker.searching.submit(broker.call(), broker.request(broker.prepared(facts)))
    decided, rejected = broker.bus.ledger.entries
    assert raised.value.metadata == {
        "recorded_request_sha256": decided.search_decided.request_sha256.hex(),
        "rejected_request_sha256": rejected.request_rejected.rejected_request_sha256.hex(),
    }
    assert rejected.request_rejected.reason == "SEARCH_ID_TAKEN"
    assert len(broker.bus.published) == 1


async def test_a_refused_search_with_another_reason_is_a_conflict_on_record(
    broker: BrokerOnTheTable,
) -> None:
    """Both are seen: what was refused, and that another story was told under its name."""
    broker.bus.policy.outcome = REFUSED
    facts = own_case()
    refused = await broker.searching.submit(broker.call(), broker.request(broker.prepared(facts)))
    facts.narrative = "Another story."
    broker.bus.policy.outcome = PERMITTED
    with pytest.raises(Conflict):
        await broker.searching.submit(broker.call(), broker.request(broker.prepared(facts)))
    assert refused.state == pb.SEARCH_STATE_REFUSED
    assert broker.bus.ledger.kinds() == ["search_decided", "request_rejected"]
    decided, rejected = broker.bus.ledger.entries
    assert rejected.search_id == decided.search_id
    assert rejected.request_rejected.reason == "SEARCH_ID_TAKEN"
    assert not broker.bus.published


async def test_an_agency_cannot_ask_as_another_and_that_is_recorded(
    broker: BrokerOnTheTable,
) -> None:
    with pytest.raises(NotAllowed) as raised:
        await broker.searching.submit(broker.call(LASD), broker.request(broker.prepared()))
    assert raised.value.reason == "ORIGIN_NOT_CALLER"
    (entry,) = broker.bus.ledger.entries
    assert entry.request_rejected.caller == f"spiffe://countersign.test/agency/{LASD}"
    assert entry.request_rejected.rpc == "countersign.broker.v1.BrokerService/SubmitSearch"


async def test_an_expired_token_is_turned_away_on_record(broker: BrokerOnTheTable) -> None:
    request = broker.request(broker.prepared())
    broker.clock.advance(hours=1)
    with pytest.raises(NotAuthentic) as raised:
        await broker.searching.submit(broker.call(), request)
    assert raised.value.reason == "OFFICER_TOKEN_EXPIRED"
    assert broker.bus.ledger.entries[0].request_rejected.reason == "OFFICER_TOKEN_EXPIRED"
    assert broker.bus.happened == ["ledger.append"]


async def test_a_token_for_another_search_is_turned_away(broker: BrokerOnTheTable) -> None:
    stolen = broker.provider.token(OFFICER, own_case().search_id)
    with pytest.raises(NotAuthentic) as raised:
        await broker.searching.submit(broker.call(), broker.prepared().request(stolen))
    assert raised.value.reason == "OFFICER_TOKEN_UNBOUND"


async def test_a_probe_sealed_to_another_key_is_an_invalid_request(
    broker: BrokerOnTheTable,
) -> None:
    prepared = broker.prepared()
    old = broker.trust.systems["lacris"]
    new = SystemKeys(
        sealing_public_key=PrivateKey.generate().public_key, answer_verify_key=old.answer_verify_key
    )
    broker.trust = broker.trust.model_copy(update={"systems": {"lacris": new}})
    broker.restart()
    with pytest.raises(InvalidRequest) as raised:
        await broker.searching.submit(broker.call(), broker.request(prepared))
    assert raised.value.reason == "PROBE_SEALED_TO_OTHER_KEY"


async def test_a_caller_that_gives_up_leaves_no_decision_without_its_order(
    broker: BrokerOnTheTable,
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        asked.set()
        await go_on.wait()

    broker.bus.before["ledger.append"] = slowly
    prepared = broker.prepared()
    call = asyncio.create_task(broker.searching.submit(broker.call(), broker.request(prepared)))
    await asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    async with asyncio.timeout(WAIT_S_MAX):
        await broker.bus.has_published.wait()
    assert broker.order(prepared.search_id).search_id == prepared.search_id


@pytest.mark.promise(1)
async def test_a_dry_run_is_recorded_and_sends_nothing(broker: BrokerOnTheTable) -> None:
    facts = own_case()
    request = pb.CheckSearchRequest(
        facts=facts, officer_token=broker.provider.token(OFFICER, facts.search_id)
    )
    response = await broker.searching.check(broker.call(rpc="CheckSearch"), request)
    assert response.receipt.index == 0
    assert broker.bus.ledger.kinds() == ["search_checked"]
    assert not broker.bus.published


@pytest.mark.promise(3)
def test_a_decision_is_a_permit_only_when_every_verdict_permits() -> None:
    decision = Decision(outcome=DecisionOutcome.DECISION_OUTCOME_PERMITTED)
    assert not is_permitted(decision), "no party was asked"
    decision.verdicts.add(outcome=VerdictOutcome.VERDICT_OUTCOME_PERMIT)
    assert is_permitted(decision)
    decision.verdicts.add(outcome=VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL)
    assert not is_permitted(decision)


@pytest.mark.promise(5)
async def test_what_is_sensitive_reaches_the_ledger_as_openings_only(
    broker: BrokerOnTheTable,
) -> None:
    await broker.searching.submit(broker.call(), broker.request(broker.prepared()))
    leaf = broker.bus.ledger.entries[0].SerializeToString()
    for secret in (b"26-0001", b"A shop was robbed.", OFFICER.encode()):
        assert secret not in leaf


@pytest.mark.promise(3)
@pytest.mark.promise(5)
@pytest.mark.parametrize("where", ["facts", "offence", "instrument"])
async def test_facts_that_say_more_than_the_broker_knows_are_neither_judged_nor_published(
    broker: BrokerOnTheTable, where: str
) -> None:
    """Copied into the public entry, a field that nobody reads could be a picture, for ever."""
    facts = own_case()
    of: dict[str, Message] = {
        "facts": facts,
        "offence": facts.offence,
        "instrument": facts.circumstances.instrument,
    }
    of[where].MergeFromString(UNKNOWN_FIELD)
    assert UNKNOWN_FIELD in facts.SerializeToString()
    with pytest.raises(InvalidRequest):
        await broker.searching.submit(broker.call(), broker.request(broker.prepared(facts)))
    token = broker.provider.token(OFFICER, facts.search_id)
    with pytest.raises(InvalidRequest):
        await broker.searching.check(
            broker.call(rpc="CheckSearch"), pb.CheckSearchRequest(facts=facts, officer_token=token)
        )
    assert not broker.bus.happened


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    "message",
    [own_case(), pb.GetSearchRequest(), pb.WatchSearchRequest(), pb.CancelSearchRequest()],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_a_search_id_has_one_spelling(message: Message) -> None:
    """In another spelling it would be another key, and could end this search."""
    message.search_id = "4961f0b6-0000-4000-8000-00000000000a"  # type: ignore[attr-defined]
    assert not protovalidate.collect_violations(message)
    message.search_id = "4961F0B6-0000-4000-8000-00000000000A"  # type: ignore[attr-defined]
    (found,) = protovalidate.collect_violations(message)
    assert "search_id" in str(found.proto.field)


@pytest.mark.promise(8)
async def test_an_id_that_stands_for_no_search_yet_is_not_public(broker: BrokerOnTheTable) -> None:
    """Whoever could read it could take it first."""
    facts = own_case()
    token = broker.provider.token(OFFICER, facts.search_id)
    request = pb.CheckSearchRequest(facts=facts, officer_token=token)
    await broker.searching.check(broker.call(rpc="CheckSearch"), request)
    broker.bus.policy.down = True
    with pytest.raises(Unavailable):
        await broker.searching.submit(broker.call(), broker.request(broker.prepared(facts)))
    with pytest.raises(NotAllowed):
        await broker.searching.submit(broker.call(LASD), broker.request(broker.prepared(facts)))
    assert broker.bus.ledger.kinds() == ["search_checked", "search_undecided", "request_rejected"]
    for entry in broker.bus.ledger.entries:
        assert facts.search_id.encode() not in entry.SerializeToString()


async def test_an_order_that_overtakes_a_withdrawal_is_taken_back(
    broker: BrokerOnTheTable,
) -> None:
    prepared = broker.prepared()
    subject = f"orders.lacris.{prepared.search_id}"

    async def withdrawn_meanwhile() -> None:
        record = broker.known.get(prepared.search_id)
        assert record is not None
        await broker.ending.withdraw(record)

    broker.bus.before[subject] = withdrawn_meanwhile
    record = await broker.searching.submit(broker.call(), broker.request(prepared))
    assert record.state == pb.SEARCH_STATE_WITHDRAWN
    assert broker.bus.happened[-1] == subject
    assert not broker.bus.published


async def test_the_token_that_vouched_is_on_record_by_its_digest_and_the_officer_by_a_commitment(
    broker: BrokerOnTheTable,
) -> None:
    request = broker.request(broker.prepared())
    await broker.searching.submit(broker.call(), request)
    checking = pb.CheckSearchRequest(facts=request.facts, officer_token=request.officer_token)
    await broker.searching.check(broker.call(rpc="CheckSearch"), checking)
    decided, checked = broker.bus.ledger.entries
    digest = hashlib.sha256(request.officer_token.encode()).digest()
    assert decided.search_decided.officer_token_sha256 == digest
    assert checked.search_checked.officer_token_sha256 == digest
    assert [fields.count("officer") for fields in broker.bus.ledger.sensitive] == [1, 1]
