"""Directives on record: handed in, followed, rebuilt; on a real ledger and bus."""

from datetime import UTC, datetime, timedelta

import pytest

from countersign.policy.v1 import policy_pb2 as pb
from support.documents import NAME, handed_in, renamed, withdrawal_note
from support.publishing import ALL, OTHERS, Scene, held_by, on_record, outcome, proved, ready
from support.waiting import until

TODAY = datetime.now(UTC).date()
TOMORROW = TODAY + timedelta(days=1)


@pytest.mark.promise(9)
async def test_what_is_published_is_whole_on_record_decides_and_is_rebuilt(scene: Scene) -> None:
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        nothing = await scene.evaluated()
        assert outcome(nothing) == "REFUSED"
        assert {fault for v in nothing.decision.verdicts for fault in v.faults} == {"NO_DIRECTIVE"}
        request = handed_in()
        assert request.received_late, "its days are past: said to be known"
        done = await client.publish(request)
        event = proved(done.receipt).directive_published
        texts = (event.manifest_text, event.rules_text, event.cases_text, event.note)
        assert texts == (request.manifest, request.rules, request.cases, request.note)
        again = await client.publish(request)
        assert again.directive.published_index == done.receipt.index
        assert not again.HasField("receipt")
        assert len(scene.documents()) == 1, "the same again is on record once"
        await on_record(policy, *OTHERS)
        before = await scene.evaluated()
        assert outcome(before) == "PERMITTED"
        assert before.decision.documents_index == 2
        shown = await client.get(NAME)
        assert (shown.rules, shown.cases, shown.note) == texts[1:]
        assert shown.directive.published_index == done.receipt.index
    # Another process that never had anything but the ledger.
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        after = await scene.evaluated()
        assert await client.get(NAME) == shown
    for response in (before, after):
        response.decision.ClearField("evaluated_at")
    assert after == before


async def test_another_service_hears_of_it_and_of_its_end(scene: Scene) -> None:
    async with (
        scene.policy() as policy,
        scene.policy() as other,
        scene.client(policy) as client,
        scene.client(other) as elsewhere,
    ):
        await ready(client.list)
        await on_record(policy, *ALL)

        async def heard() -> bool:
            return len(await elsewhere.list()) == 3

        await until(heard)
        held = await held_by(client)
        note = withdrawal_note(held, TODAY)
        request = pb.WithdrawDirectiveRequest(
            name=NAME, effective_until=TODAY.isoformat(), note=note
        )
        done = await client.withdraw(request)
        assert proved(done.receipt).directive_withdrawn.name == NAME
        assert not done.directive.in_force
        assert not (await client.withdraw(request)).HasField("receipt")

        async def ended() -> bool:
            return (await elsewhere.get(NAME)).directive.withdrawn_index == done.receipt.index

        await until(ended)
        assert outcome(await scene.evaluated()) == "REFUSED"


async def test_a_later_text_takes_its_place_on_its_day(scene: Scene) -> None:
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        await on_record(policy, NAME)
        later = handed_in(
            manifest=renamed("lapd-later", TOMORROW.isoformat()),
            cases=[("at: 2026-06-01T12:00:00Z", f"at: {TOMORROW}T12:00:00Z")],
        )
        later.received_late = False
        done = await client.publish(later)
        assert not done.directive.in_force
        old = (await client.get(NAME)).directive
        assert old.in_force
        assert old.replaced_by == "lapd-later"
        assert old.ends == done.directive.effective_from


@pytest.mark.promise(9)
async def test_who_is_asked_by_a_newer_document_hears_of_it_first(scene: Scene) -> None:
    async with (
        scene.policy() as policy,
        scene.client(policy) as client,
    ):
        await ready(client.list)
        await on_record(policy, *ALL)
        async with scene.deciding_alone() as deciding:
            assert outcome(await deciding.evaluate(scene.question())) == "PERMITTED"
            held = await held_by(client)
            ended = await client.withdraw(
                pb.WithdrawDirectiveRequest(
                    name=NAME,
                    effective_until=TODAY.isoformat(),
                    note=withdrawal_note(held, TODAY),
                )
            )
            # It follows nothing by itself.
            assert outcome(await deciding.evaluate(scene.question())) == "PERMITTED"
            newer = scene.question(ended.receipt.index)
            assert outcome(await deciding.evaluate(newer)) == "REFUSED"
