"""A broker without a registry file: who takes part is what owners published, and nothing else holds it."""

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client.documents import DirectiveClient, RegistrationClient
from countersign.installation.ports import address
from countersign.ledger.v1 import append_pb2 as ledger_pb
from policy.__main__ import RunningPolicy
from shared.bus import connected
from shared.errors import NotAuthentic
from shared.signing import SigningKey
from support.directives import LAPD
from support.following_brokers import (
    AgencyOfAScene,
    following,
    provider_in_toml,
    write_broker_trust,
)
from support.publishing import TIMEOUT_S, Scene, publish_all, ready
from support.registrations import LASD, demonstration, document, signed, system

pytestmark = pytest.mark.promise(9)

DEMONSTRATION = demonstration()
FIRST, SECOND = SigningKey.generate(), SigningKey.generate()


def vouched_for_by(key: SigningKey) -> tuple[str, str]:
    """LAPD's document with an identity provider."""
    public, officers = DEMONSTRATION[LAPD]
    keys, rest = public.split("[keys]\n")
    return f"{keys}[keys]\n{provider_in_toml(key)}{rest}", officers


async def register_all(scene: Scene, policy: RunningPolicy) -> None:
    tls = scene.nats.certificates.tls("agency", LAPD)
    at = address(policy.server.port)
    async with DirectiveClient.connect(at, tls) as directives:
        await ready(directives.list)
        async with RegistrationClient.connect(at, tls) as owners:
            for public, officers in (DEMONSTRATION | {LAPD: vouched_for_by(FIRST)}).values():
                await owners.publish(signed(document(public, officers), 1))
        await publish_all(directives)


async def change(scene: Scene, policy: RunningPolicy, public: str, officers: str = "") -> None:
    tls = scene.nats.certificates.tls("agency", LAPD)
    async with RegistrationClient.connect(address(policy.server.port), tls) as owners:
        await owners.publish(signed(document(public, officers), 2))


async def is_vouched_for(lapd: AgencyOfAScene, key: SigningKey) -> bool:
    try:
        _, search = await lapd.submit(key)
    except NotAuthentic:
        return False
    assert search.state == pb.SEARCH_STATE_PENDING
    return True


@pytest.fixture(name="scene")
def _scene_of_owners(scene: Scene) -> Scene:
    scene.registry = None
    write_broker_trust(scene)
    return scene


async def test_who_takes_part_comes_from_the_ledger_alone_and_a_retired_key_vouches_for_nobody(
    scene: Scene,
) -> None:
    async with scene.policy() as policy, following(scene) as lapd:
        await register_all(scene, policy)
        await lapd.knows("lacris")
        prepared, search = await lapd.submit(FIRST)
        assert search.state == pb.SEARCH_STATE_PENDING
        await change(scene, policy, *vouched_for_by(SECOND))
        # With the next request, whether or not the broker has heard of it before.
        assert not await is_vouched_for(lapd, FIRST)
        assert await is_vouched_for(lapd, SECOND)
    scene.ledger.kill()
    await scene.ledger.start()
    async with scene.policy(), following(scene) as lapd:
        await lapd.knows("lacris")
        assert not await is_vouched_for(lapd, FIRST)
        assert await is_vouched_for(lapd, SECOND)
        assert (await lapd.client.get(prepared.search_id)).state == pb.SEARCH_STATE_PENDING


@pytest.mark.promise(8)
async def test_a_system_without_a_place_on_the_bus_does_not_hold_up_the_others(
    scene: Scene,
) -> None:
    async with scene.policy() as policy, following(scene) as lapd:
        await register_all(scene, policy)
        await change(scene, policy, DEMONSTRATION[LASD][0] + system("elsewhere"))
        await lapd.knows("elsewhere")
        assert await is_vouched_for(lapd, FIRST)


@pytest.mark.promise(7)
async def test_the_broker_is_told_nothing_of_officers(scene: Scene) -> None:
    async with scene.policy() as policy:
        await register_all(scene, policy)
        async with connected(scene.nats.bus_settings("service", "broker"), "broker") as bus:
            told = await bus.request(
                "ledger.list_public_documents",
                ledger_pb.ListDocumentsRequest(),
                ledger_pb.ListDocumentsResponse,
                TIMEOUT_S,
            )
    kinds = {e.WhichOneof("event") for e in scene.documents()}
    assert "officers_published" in kinds
    assert len(told.documents) == len(scene.documents())
    assert not any(one.openings for one in told.documents)
