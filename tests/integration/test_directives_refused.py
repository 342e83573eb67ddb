"""What is handed in and does not pass is refused by name, and nothing is on record."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from countersign.ledger.v1 import append_pb2 as ledger_pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1 import policy_pb2 as pb
from shared.bus import connected
from shared.errors import Conflict, InvalidRequest, NotAllowed, NotFound, ServiceError, Unavailable
from support.directives import LAPD
from support.documents import NAME, handed_in, withdrawal_note
from support.ledgers import decided, rejected
from support.publishing import (
    ALL,
    OTHERS,
    TIMEOUT_S,
    Scene,
    held_by,
    on_record,
    outcome,
    ready,
)
from support.waiting import until

TODAY = datetime.now(UTC).date()
TOMORROW = TODAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("changes", "guard"),
    [
        ({"by": ""}, "SIGNATURE_MISSING"),
        ({"by": "stranger"}, "SIGNATURE_OTHER_PARTY"),
        ({"by": "US-CA"}, "SIGNATURE_OTHER_PARTY"),
        ({"rules": [("forbid (", "forbid ( nonsense")]}, "PARSE"),
        ({"rules": [("resource.system.commercial", "context has commercial")]}, ""),
        ({"cases": [("expect: permit", "expect: forbid")]}, "CASE_FAILS"),
        (
            {"manifest": [('party = "CA0194200"', 'party = "XX0000009"')], "by": LAPD},
            "SIGNER_UNKNOWN",
        ),
    ],
)
async def test_what_does_not_pass_is_refused_by_name_and_nothing_is_on_record(
    scene: Scene, changes: dict[str, Any], guard: str
) -> None:
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        with pytest.raises(InvalidRequest) as refused:
            await client.publish(handed_in(**changes))
        assert refused.value.reason == "DIRECTIVE_REFUSED"
        assert f"[{guard}" in refused.value.violations[0].description
        assert await client.list() == []
    assert scene.documents() == []


async def test_days_that_are_past_are_refused(scene: Scene) -> None:
    late = handed_in()
    late.received_late = False
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        with pytest.raises(InvalidRequest, match="finding"):
            await client.publish(late)
        await on_record(policy, NAME)
        held = await held_by(client)
        yesterday = TODAY - timedelta(days=1)
        with pytest.raises(InvalidRequest) as refused:
            await client.withdraw(
                pb.WithdrawDirectiveRequest(
                    name=NAME,
                    effective_until=yesterday.isoformat(),
                    note=withdrawal_note(held, yesterday),
                )
            )
        assert refused.value.violations[0].field == "effective_until"
    assert len(scene.documents()) == 1


async def test_another_text_with_its_name_is_a_conflict(scene: Scene) -> None:
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        await on_record(policy, NAME)
        with pytest.raises(Conflict) as refused:
            await client.publish(handed_in(cases=[("cases:", "# another\ncases:")]))
        assert refused.value.reason == "NAME_TAKEN"
        with pytest.raises(NotFound):
            await client.withdraw(
                pb.WithdrawDirectiveRequest(name="nobodys", effective_until=TODAY.isoformat())
            )


@pytest.mark.parametrize(("kind", "name"), [("service", "broker"), ("connector", "lacris")])
async def test_who_has_no_business_with_it_hands_nothing_in(
    scene: Scene, kind: str, name: str
) -> None:
    async with scene.policy() as policy, scene.client(policy, kind, name) as client:
        with pytest.raises(NotAllowed):
            await client.publish(handed_in())
        with pytest.raises(NotAllowed):
            await client.withdraw(
                pb.WithdrawDirectiveRequest(name=NAME, effective_until="2027-01-01")
            )


async def test_two_services_publish_at_the_same_time_and_nothing_is_lost(scene: Scene) -> None:
    async with (
        scene.policy() as one,
        scene.policy() as other,
        scene.client(one) as client,
        scene.client(other) as elsewhere,
    ):
        await ready(client.list)
        await ready(elsewhere.list)
        await asyncio.gather(
            client.publish(handed_in(NAME)), elsewhere.publish(handed_in(OTHERS[0]))
        )

        async def both() -> bool:
            return len(await client.list()) == len(await elsewhere.list()) == 2

        await until(both)
    chain = scene.documents()
    assert [entry.HasField("previous_document") for entry in chain] == [False, True]
    assert chain[1].previous_document == 0


@pytest.mark.promise(3)
async def test_who_has_not_heard_from_the_ledger_decides_nothing(scene: Scene) -> None:
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        await on_record(policy, *ALL)
        assert outcome(await scene.evaluated()) == "PERMITTED"
        await scene.ledger.stop()

        async def is_stale() -> bool:
            return not policy.is_ready

        await until(is_stale)
        with pytest.raises(Unavailable) as refused:
            await scene.evaluated()
        assert refused.value.reason == "DIRECTIVES_STALE"
        await scene.ledger.start()
        await ready(scene.evaluated)
        assert outcome(await scene.evaluated()) == "PERMITTED"


@pytest.mark.promise(7)
async def test_attack_the_broker_publishes(scene: Scene) -> None:
    """Neither the bus nor the ledger lets it: not by that subject, nor as an entry of a search."""
    entry = Entry()
    entry.directive_published.name = "forged"
    pending = ledger_pb.PendingEntry(entry=entry)
    async with connected(scene.nats.bus_settings("service", "broker"), "broker") as bus:
        with pytest.raises(Unavailable):
            await bus.request(
                "ledger.publish",
                ledger_pb.PublishDocumentRequest(document=pending),
                ledger_pb.PublishDocumentResponse,
                1.0,
            )
        chained = rejected()
        chained.entry.previous_document = 0
        keyed = rejected()
        keyed.idempotency_key = "document/first"
        for forged in (pending, chained, keyed):
            with pytest.raises(InvalidRequest) as refused:
                await bus.request(
                    "ledger.append",
                    ledger_pb.AppendRequest(entries=[forged]),
                    ledger_pb.AppendResponse,
                    TIMEOUT_S,
                )
            assert refused.value.reason == "ENTRY_INVALID"
    assert scene.documents() == []


@pytest.mark.parametrize(
    "change",
    [
        lambda pending: setattr(pending, "idempotency_key", "document/first"),
        lambda pending: setattr(pending.entry, "previous_document", 17),
        lambda pending: pending.entry.request_rejected.SetInParent(),
    ],
)
async def test_what_is_no_document_in_the_chain_is_not_published(
    scene: Scene, change: Callable[[Any], object]
) -> None:
    entry = Entry()
    entry.directive_published.name = "a"
    pending = ledger_pb.PendingEntry(entry=entry)
    change(pending)
    async with connected(scene.nats.bus_settings("service", "policy"), "policy") as bus:
        with pytest.raises(ServiceError):
            await bus.request(
                "ledger.publish",
                ledger_pb.PublishDocumentRequest(document=pending),
                ledger_pb.PublishDocumentResponse,
                TIMEOUT_S,
            )
    assert scene.documents() == []


async def test_a_document_that_cannot_be_applied_ends_the_service_and_nothing_is_decided(
    scene: Scene,
) -> None:
    """As after a mistake in an older release: whatever it forbids must not be passed over."""
    entry = Entry()
    entry.directive_published.name = "unreadable"
    async with connected(scene.nats.bus_settings("service", "policy"), "policy") as bus:
        await bus.request(
            "ledger.publish",
            ledger_pb.PublishDocumentRequest(document=ledger_pb.PendingEntry(entry=entry)),
            ledger_pb.PublishDocumentResponse,
            TIMEOUT_S,
        )
    async with scene.policy() as policy, scene.client(policy) as client:
        async with asyncio.timeout(TIMEOUT_S):
            await policy.ended.wait()
        with pytest.raises(Unavailable):
            await client.list()


@pytest.mark.promise(3)
@pytest.mark.promise(9)
async def test_attack_a_decision_that_does_not_know_the_newest_document(scene: Scene) -> None:
    """As of a policy service that has not heard yet: the ledger does not take it, the broker asks again."""
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        await on_record(policy, *ALL)
        old = await scene.evaluated()
        held = await held_by(client)
        note = withdrawal_note(held, TODAY)
        request = pb.WithdrawDirectiveRequest(
            name=NAME, effective_until=TODAY.isoformat(), note=note
        )
        ended = await client.withdraw(request)
    entry = decided(1)
    entry.entry.search_decided.decision.CopyFrom(old.decision)
    append = ledger_pb.AppendRequest(entries=[entry])
    async with connected(scene.nats.bus_settings("service", "broker"), "broker") as bus:
        with pytest.raises(InvalidRequest) as refused:
            await bus.request("ledger.append", append, ledger_pb.AppendResponse, TIMEOUT_S)
        assert refused.value.reason == "DECISION_OUTDATED"
        assert refused.value.metadata == {"documents_index": str(ended.receipt.index)}
        # Nor one that knows of none, as of a policy service that reads a folder.
        of_folder = decided(2)
        of_folder.entry.search_decided.decision.outcome = old.decision.outcome
        with pytest.raises(InvalidRequest, match="up to None"):
            await bus.request(
                "ledger.append",
                ledger_pb.AppendRequest(entries=[of_folder]),
                ledger_pb.AppendResponse,
                TIMEOUT_S,
            )
        # Nor after a restart, when the ledger looks up what is newest.
        await scene.ledger.stop()
        await scene.ledger.start()
        with pytest.raises(InvalidRequest):
            await bus.request("ledger.append", append, ledger_pb.AppendResponse, TIMEOUT_S)
        entry.entry.search_decided.decision.documents_index = ended.receipt.index
        append = ledger_pb.AppendRequest(entries=[entry])
        await bus.request("ledger.append", append, ledger_pb.AppendResponse, TIMEOUT_S)


async def test_a_part_of_a_registration_makes_no_decision_outdated(scene: Scene) -> None:
    """It changes nothing before its last part is on record; nobody's searches wait for the rest."""
    part = Entry()
    part.registry_published.parts = 2
    appended = ledger_pb.AppendResponse
    async with (
        connected(scene.nats.bus_settings("service", "policy"), "policy") as policy,
        connected(scene.nats.bus_settings("service", "broker"), "broker") as broker,
    ):

        async def publish(number: int, previous: int | None) -> int:
            part.registry_published.part = number
            part.ClearField("previous_document")
            if previous is not None:
                part.previous_document = previous
            request = ledger_pb.PublishDocumentRequest(document=ledger_pb.PendingEntry(entry=part))
            done = await policy.request(
                "ledger.publish", request, ledger_pb.PublishDocumentResponse, TIMEOUT_S
            )
            return done.appended.receipt.index

        async def decide(number: int, known: int) -> None:
            entry = decided(number)
            entry.entry.search_decided.decision.documents_index = known
            append = ledger_pb.AppendRequest(entries=[entry])
            await broker.request("ledger.append", append, appended, TIMEOUT_S)

        first = await publish(2, None)
        await decide(1, first)
        begun = await publish(1, first)
        await decide(2, first)
        await decide(3, begun)
        with pytest.raises(InvalidRequest):
            await decide(4, begun + 1)
        last = await publish(2, begun)
        for known in (first, begun):
            with pytest.raises(InvalidRequest, match="the newest is"):
                await decide(5, known)
        await decide(6, last)


async def test_who_follows_another_log_is_told_so(scene: Scene) -> None:
    async with connected(scene.nats.bus_settings("service", "policy"), "policy") as policy:
        with pytest.raises(NotFound):
            await policy.request(
                "ledger.list_documents",
                ledger_pb.ListDocumentsRequest(after_index=7),
                ledger_pb.ListDocumentsResponse,
                TIMEOUT_S,
            )
