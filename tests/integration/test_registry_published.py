"""What owners register, on record: it counts from the next search on, and nothing else holds it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from countersign.client.documents import DirectiveClient, RegistrationClient
from countersign.installation.ports import address
from countersign.ledger.v1.append_pb2 import PendingEntry
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1 import policy_pb2 as pb
from policy.__main__ import RunningPolicy
from registry.folding import Fold
from registry.signature import Signed
from shared.errors import InvalidRequest, NotReady, ServiceError
from support.directives import LAPD
from support.documents import handed_in
from support.publishing import ALL, Scene, on_record, outcome, proved, ready
from support.registrations import (
    BURBANK,
    agency,
    demonstration,
    document,
    published,
    signed,
    signer,
)

pytestmark = pytest.mark.promise(9)

DEMONSTRATION = demonstration()
LAPD_PUBLIC, ACTIVE = DEMONSTRATION[LAPD]
SUSPENDED = ACTIVE.replace("active = true", "active = false", 1)


@pytest.fixture(name="scene")
def _scene_of_owners(scene: Scene) -> Scene:
    scene.registry = None
    return scene


def ours(officers: str, serial: int, public: str = LAPD_PUBLIC) -> Signed:
    return signed(document(public, officers), serial)


def connect(scene: Scene, policy: RunningPolicy) -> AbstractAsyncContextManager[RegistrationClient]:
    tls = scene.nats.certificates.tls("agency", LAPD)
    return RegistrationClient.connect(address(policy.server.port), tls)


@asynccontextmanager
async def owners_at_work(
    scene: Scene,
) -> AsyncIterator[tuple[RunningPolicy, DirectiveClient, RegistrationClient]]:
    """A policy service, and who publishes directives and registrations with it."""
    async with (
        scene.policy() as policy,
        scene.client(policy) as client,
        connect(scene, policy) as owners,
    ):
        yield policy, client, owners


async def register_all(client: RegistrationClient) -> None:
    for public, officers in DEMONSTRATION.values():
        await client.publish(signed(document(public, officers), 1))


async def begin(policy: RunningPolicy, client: DirectiveClient, owners: RegistrationClient) -> None:
    await ready(client.list)
    await register_all(owners)
    await on_record(policy, *ALL)


async def test_who_registered_is_decided_by_it_and_a_suspension_acts_on_the_next_search(
    scene: Scene,
) -> None:
    async with owners_at_work(scene) as (policy, client, owners):
        await begin(policy, client, owners)
        before = await scene.evaluated()
        assert outcome(before) == "PERMITTED"
        done = await owners.publish(ours(SUSPENDED, 2))
        (receipt,) = done.receipts
        assert proved(receipt).officers_published.statement == done.statement
        after = await scene.evaluated()
        assert outcome(after) == "REFUSED"
        assert after.decision.policy_set_sha256 != before.decision.policy_set_sha256
        assert after.decision.documents_index == receipt.index
    # Another process, which never had anything but the ledger and what stands behind its commitments.
    async with scene.policy() as policy, scene.client(policy) as client:
        await ready(client.list)
        again = await scene.evaluated()
    for response in (after, again):
        response.decision.ClearField("evaluated_at")
    assert again == after


@pytest.mark.promise(5)
async def test_no_document_says_who_the_officers_are(scene: Scene) -> None:
    async with owners_at_work(scene) as (_policy, client, owners):
        await ready(client.list)
        await register_all(owners)
    leaves = b"".join(entry.SerializeToString() for entry in scene.documents())
    assert b"lapd-fr-users" in leaves
    assert b"lapd-40123" not in leaves


@pytest.mark.promise(7)
async def test_attack_cases_do_not_tell_who_is_an_officer_elsewhere(scene: Scene) -> None:
    """A party that publishes would learn of anybody whether they are one, on which lists, and with what."""

    async def said(client: DirectiveClient, officer: str) -> str:
        invented = (f"    burbank-117: {{agency: {BURBANK}, active: true}}\n", "")
        asked = ("officer: burbank-117", f"officer: {officer}")
        with pytest.raises(InvalidRequest) as refused:
            await client.publish(handed_in(cases=[invented, asked]))
        return "\n".join(one.description for one in refused.value.violations)

    async with owners_at_work(scene) as (_policy, client, owners):
        await ready(client.list)
        await register_all(owners)
        assert "burbank-117" in DEMONSTRATION[BURBANK][1]
        of_burbank, of_nobody = [
            await said(client, officer) for officer in ("burbank-117", "nobody-99999")
        ]
    assert "UNKNOWN_OFFICER" in of_nobody
    assert of_burbank == of_nobody


async def test_the_same_registration_again_is_on_record_once(scene: Scene) -> None:
    async with owners_at_work(scene) as (_policy, client, owners):
        await ready(client.list)
        await register_all(owners)
        count = len(scene.documents())
        assert not (await owners.publish(ours(ACTIVE, 1))).receipts
    assert len(scene.documents()) == count


async def hand_in(owners: RegistrationClient, entries: list[PendingEntry]) -> None:
    for pending in entries:
        pending.idempotency_key = ""
    await owners.hand_in(pb.PublishRegistrationRequest(entries=entries))


@pytest.mark.parametrize(
    ("said", "guard"),
    [
        (signed(document(LAPD_PUBLIC, SUSPENDED), 2, by=None), ""),
        (signed(document(agency(BURBANK)), 2, by=signer(LAPD)), "SIGNATURE_OTHER_PARTY"),
        (ours(ACTIVE.replace("lapd-fr-users", "nobodys-list"), 2), "LIST_UNKNOWN"),
    ],
)
async def test_what_would_not_count_is_refused_and_not_recorded(
    scene: Scene, said: Signed, guard: str
) -> None:
    async with owners_at_work(scene) as (_policy, client, owners):
        await ready(client.list)
        await register_all(owners)
        count = len(scene.documents())
        if not guard:
            # Signed by its owner, and one byte of it changed on its way.
            entries = published(Fold({}), said)
            entries[0].entry.registry_published.document.content += b"\n"
            with pytest.raises(InvalidRequest) as refused:
                await hand_in(owners, entries)
        else:
            with pytest.raises(InvalidRequest) as refused:
                await owners.publish(said)
        assert refused.value.reason == "REGISTRY_REFUSED"
        assert guard in str(refused.value.metadata)
    assert len(scene.documents()) == count


async def test_what_a_directive_names_cannot_be_taken_away(scene: Scene) -> None:
    async with owners_at_work(scene) as (policy, client, owners):
        await begin(policy, client, owners)
        unlisted = ACTIVE.replace("['lapd-fr-users']", "[]")
        head, _, _ = LAPD_PUBLIC.partition("[lists.")
        without_list = ours(unlisted, 2, head)
        with pytest.raises(InvalidRequest) as refused:
            await owners.publish(without_list)
        assert "lapd-fr-users" in refused.value.violations[0].description
        assert outcome(await scene.evaluated()) == "PERMITTED"


async def test_half_a_publication_is_refused(scene: Scene) -> None:
    said = ours(ACTIVE, 1)
    first, *rest = published(Fold({}), said)
    unopened = [PendingEntry(entry=one.entry) for one in (first, *rest)]
    other = Entry()
    other.directive_published.name = "a"
    async with owners_at_work(scene) as (_policy, client, owners):
        await ready(client.list)
        for entries in ([first], [PendingEntry(entry=other)], [first, first], unopened):
            with pytest.raises(ServiceError):
                await hand_in(owners, entries)
    assert scene.documents() == []


async def test_a_registry_that_is_a_file_is_changed_there(scene: Scene) -> None:
    scene.registry = Scene.registry
    async with owners_at_work(scene) as (_policy, client, owners):
        await ready(client.list)
        with pytest.raises(NotReady) as refused:
            await owners.publish(ours(ACTIVE, 1))
        assert refused.value.reason == "REGISTRY_IS_A_FILE"
        await client.publish(handed_in())
