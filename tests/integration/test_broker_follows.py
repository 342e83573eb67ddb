"""A broker without a registry file: who takes part is what owners published, and nothing else holds it."""

import contextlib

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client.documents import DirectiveClient, RegistrationClient
from countersign.client.prepare import PreparedSearch
from countersign.installation.ports import address
from countersign.ledger.v1 import append_pb2 as ledger_pb
from policy.__main__ import RunningPolicy
from shared.bus import connected
from shared.errors import NotAuthentic
from shared.signing import SigningKey
from shared.tokens import AUDIENCE, LEDGER_AUDIENCE
from support.directives import LAPD, TRAINED
from support.following_brokers import (
    AgencyOfAScene,
    Registration,
    development_provider,
    following,
    provider_in_toml,
    write_broker_trust,
)
from support.openid_provider import RegisteredClient, openid_provider
from support.publishing import ALL, TIMEOUT_S, Scene, on_record, ready
from support.registrations import LASD, demonstration, document, signed, system
from support.signals import Signals

pytestmark = pytest.mark.promise(9)

DEMONSTRATION = demonstration()
KEY = SigningKey.generate()
PROGRAMS = [RegisteredClient(AUDIENCE, lives_s=300), RegisteredClient(LEDGER_AUDIENCE, lives_s=300)]


def vouched_for_by(provider: Registration) -> tuple[str, str]:
    """LAPD's document with an identity provider."""
    public, officers = DEMONSTRATION[LAPD]
    keys, rest = public.split("[keys]\n")
    return f"{keys}[keys]\n{provider_in_toml(provider)}{rest}", officers


async def register_all(
    scene: Scene, policy: RunningPolicy, provider: Registration | None = None
) -> None:
    lapd = vouched_for_by(provider or development_provider(KEY))
    tls = scene.nats.certificates.tls("agency", LAPD)
    at = address(policy.server.port)
    async with DirectiveClient.connect(at, tls) as directives:
        await ready(directives.list)
        async with RegistrationClient.connect(at, tls) as owners:
            for public, officers in (DEMONSTRATION | {LAPD: lapd}).values():
                await owners.publish(signed(document(public, officers), 1))
        await on_record(policy, *ALL)


async def change(
    scene: Scene, policy: RunningPolicy, public: str, officers: str = "", serial: int = 2
) -> None:
    tls = scene.nats.certificates.tls("agency", LAPD)
    async with RegistrationClient.connect(address(policy.server.port), tls) as owners:
        await owners.publish(signed(document(public, officers), serial))


async def refused(lapd: AgencyOfAScene, prepared: PreparedSearch, token: str) -> str:
    """Why a token is no good."""
    with pytest.raises(NotAuthentic) as caught:
        await lapd.client.submit(prepared, token)
    return caught.value.reason


@pytest.fixture(name="scene")
def _scene_of_owners(scene: Scene) -> Scene:
    scene.registry = None
    write_broker_trust(scene)
    return scene


async def test_officers_of_an_openid_provider_are_vouched_for_by_its_registered_keys_and_no_other(
    scene: Scene,
) -> None:
    tls = scene.nats.certificates.tls("service", "identity-provider", listens=True)
    async with contextlib.AsyncExitStack() as stack:
        provider = await stack.enter_async_context(openid_provider(tls, PROGRAMS))

        async def sign_in(prepared: PreparedSearch, program: str = AUDIENCE) -> str:
            return await provider.id_token(TRAINED, prepared.search_id, program)

        async with scene.policy() as policy, following(scene) as lapd:
            await register_all(scene, policy, await provider.registration())
            await lapd.knows("lacris")
            prepared, late, second = lapd.sealed(), lapd.sealed(), lapd.sealed()
            taken = await lapd.client.submit(prepared, await sign_in(prepared))
            assert taken.state == pb.SEARCH_STATE_PENDING
            for_the_ledger = await sign_in(second, LEDGER_AUDIENCE)
            assert await refused(lapd, second, for_the_ledger) == "OFFICER_TOKEN_INVALID"
            of_another = await sign_in(prepared)
            assert await refused(lapd, second, of_another) == "OFFICER_TOKEN_UNBOUND"
            with provider.tokens_live(AUDIENCE, 3600):
                an_hour = await sign_in(second)
            assert await refused(lapd, second, an_hour) == "OFFICER_TOKEN_INVALID"

            # The provider changes its key: at first the old one is registered with the new.
            of_first_key = [await sign_in(one) for one in (second, late)]
            provider.begin_new_key()
            assert await refused(lapd, second, await sign_in(second)) == "OFFICER_TOKEN_FOREIGN"
            both = vouched_for_by(await provider.registration())
            await change(scene, policy, *both, serial=2)
            taken = await lapd.client.submit(second, of_first_key[0])
            assert taken.state == pb.SEARCH_STATE_PENDING
            third = lapd.sealed()
            taken = await lapd.client.submit(third, await sign_in(third))
            assert taken.state == pb.SEARCH_STATE_PENDING

            # With the next request, whether or not the broker has heard of it before.
            provider.retire_old_keys()
            await change(scene, policy, *vouched_for_by(await provider.registration()), serial=3)
            assert await refused(lapd, late, of_first_key[1]) == "OFFICER_TOKEN_FOREIGN"
        await scene.ledger.stop()
        await scene.ledger.start()
        # Who takes part comes from the ledger alone.
        async with scene.policy(), following(scene) as lapd:
            await lapd.knows("lacris")
            assert await refused(lapd, late, of_first_key[1]) == "OFFICER_TOKEN_FOREIGN"
            taken = await lapd.client.submit(late, await sign_in(late))
            assert taken.state == pb.SEARCH_STATE_PENDING
            assert (await lapd.client.get(prepared.search_id)).state == pb.SEARCH_STATE_PENDING


@pytest.mark.promise(8)
async def test_a_system_without_a_place_on_the_bus_does_not_hold_up_the_others(
    scene: Scene, signals: Signals
) -> None:
    async with scene.policy() as policy, following(scene) as lapd:
        await register_all(scene, policy)
        await change(scene, policy, DEMONSTRATION[LASD][0] + system("elsewhere"))
        await lapd.knows("elsewhere")
        assert (await lapd.submit(KEY)).state == pb.SEARCH_STATE_PENDING
    # Each says how far it is, apart from those that follow something else.
    known = {
        point.attributes["messaging.destination.template"]: point.value
        for point in signals.points()["countersign.documents.index"]
    }
    assert known.keys() == {"ledger.list_documents", "ledger.list_public_documents"}
    assert min(known.values()) >= 0


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
