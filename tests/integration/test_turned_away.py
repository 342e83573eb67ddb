"""Who is turned away at the broker's door, and that it is on record."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from countersign.client import ClientSettings
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.files import write_public, write_secret
from countersign.installation.pki import Authority
from shared.clock import SystemClock
from shared.errors import NotAllowed, NotAuthentic, NotFound, ServiceError
from shared.identity import Kind, SpiffeId
from shared.settings import TlsFiles
from support.agencies import AgencyAtWork, at_work, provider_of
from support.brokers import OFFICER, own_case
from support.clocks import ClockThatStandsStill
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.pictures import probe

BROKER = "countersign.broker.v1.BrokerService"


@pytest.fixture
async def lapd(installation: InstallationUnderTest) -> AsyncIterator[AgencyAtWork]:
    """LAPD's system."""
    async with at_work(installation, LAPD) as agency:
        yield agency


@pytest.fixture
async def burbank(installation: InstallationUnderTest) -> AsyncIterator[AgencyAtWork]:
    """Burbank's system."""
    async with at_work(installation, BURBANK) as agency:
        yield agency


def an_hour_ago(lapd: ClientSettings, burbank: ClientSettings, search_id: str) -> str:
    """A token that was good for five minutes, an hour ago."""
    clock = ClockThatStandsStill(SystemClock().now() - timedelta(hours=1))
    return provider_of(lapd, lapd, clock=clock).token(OFFICER, search_id)


def by_another_provider(lapd: ClientSettings, burbank: ClientSettings, search_id: str) -> str:
    """Burbank's provider says that it is LAPD's."""
    return provider_of(lapd, burbank).token(OFFICER, search_id)


def of_anothers_officer(lapd: ClientSettings, burbank: ClientSettings, search_id: str) -> str:
    """LAPD's provider vouches for an officer of Burbank."""
    return provider_of(lapd, lapd).token("burbank-117", search_id)


def for_another_search(lapd: ClientSettings, burbank: ClientSettings, search_id: str) -> str:
    """A token that an officer was given for something else."""
    return provider_of(lapd, lapd).token(OFFICER, own_case().search_id)


def changed(lapd: ClientSettings, burbank: ClientSettings, search_id: str) -> str:
    """Another officer's name under a signature that was made for one."""
    mine, other = (provider_of(lapd, lapd).token(who, search_id) for who in (OFFICER, "lapd-50999"))
    return ".".join([*other.split(".")[:2], mine.split(".")[2]])


def nonsense(lapd: ClientSettings, burbank: ClientSettings, search_id: str) -> str:
    """No token at all."""
    return "a.b.c"


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("token_of", "error", "reason"),
    [
        (an_hour_ago, NotAuthentic, "OFFICER_TOKEN_EXPIRED"),
        (by_another_provider, NotAuthentic, "OFFICER_TOKEN_FOREIGN"),
        (of_anothers_officer, NotAllowed, "OFFICER_TOKEN_FOREIGN"),
        (for_another_search, NotAuthentic, "OFFICER_TOKEN_UNBOUND"),
        (changed, NotAuthentic, "OFFICER_TOKEN_INVALID"),
        (nonsense, NotAuthentic, "OFFICER_TOKEN_INVALID"),
    ],
)
async def test_an_officer_that_is_not_vouched_for_is_turned_away_on_record(
    lapd: AgencyAtWork,
    burbank: AgencyAtWork,
    installation: InstallationUnderTest,
    token_of: Callable[[ClientSettings, ClientSettings, str], str],
    error: type[ServiceError],
    reason: str,
) -> None:
    prepared = lapd.sealed(own_case(), probe())
    token = token_of(lapd.settings, burbank.settings, prepared.search_id)
    calls = {
        "SubmitSearch": lapd.client.submit(prepared, token),
        "CheckSearch": lapd.client.check(prepared.facts, token),
    }
    for rpc, call in calls.items():
        with pytest.raises(error) as caught:
            await call
        assert caught.value.reason == reason
        assert token not in str(caught.value)
        event = (await lapd.newest("request_rejected")).request_rejected
        assert (event.rpc, event.reason) == (f"{BROKER}/{rpc}", reason)
        assert event.caller == f"spiffe://{TRUST_DOMAIN}/agency/{LAPD}"
    assert not await lapd.kinds(prepared.search_id), "nobody else learns of an id that is free"
    assert token not in installation.processes["broker"].log
    # The id is free: a good token gets its search.
    await lapd.submit(prepared)
    assert (await lapd.ended(prepared))[1].candidates


@pytest.mark.promise(1)
async def test_an_agency_cannot_ask_as_another_even_with_its_officers_token(
    lapd: AgencyAtWork, burbank: AgencyAtWork
) -> None:
    prepared = burbank.sealed(own_case(), probe())
    token = lapd.provider.token(OFFICER, prepared.search_id)
    with pytest.raises(NotAllowed) as caught:
        await burbank.client.submit(prepared, token)
    assert caught.value.reason == "ORIGIN_NOT_CALLER"
    entry = await lapd.newest("request_rejected")
    assert entry.request_rejected.reason == "ORIGIN_NOT_CALLER"
    assert entry.request_rejected.caller == f"spiffe://{TRUST_DOMAIN}/agency/{BURBANK}"


@pytest.mark.promise(7)
async def test_another_agencys_search_is_not_there(
    lapd: AgencyAtWork, burbank: AgencyAtWork
) -> None:
    prepared = lapd.sealed(own_case(), probe())
    await lapd.submit(prepared)
    answered, _ = await lapd.ended(prepared)
    nobodys = own_case().search_id
    texts = set()
    for search_id in (prepared.search_id, nobodys):
        for ask in (burbank.client.get, burbank.client.cancel):
            with pytest.raises(NotFound) as caught:
                await ask(search_id)
            assert caught.value.reason == "SEARCH_UNKNOWN"
            texts.add(str(caught.value).replace(search_id, ""))
        with pytest.raises(NotFound) as caught:
            [one async for one in burbank.client.watch(search_id)]
        texts.add(str(caught.value).replace(search_id, ""))
    assert len(texts) == 1, "nothing tells another's search from none"
    listed = await burbank.client.list(page_size=200)
    assert prepared.search_id not in {search.search_id for search in listed.searches}
    assert await lapd.client.get(prepared.search_id) == answered


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("connector", "lacris"),
        ("oversight", "us-ca-oversight"),
        ("operator", "up"),
        ("service", "policy"),
        ("service", "broker"),
    ],
)
async def test_only_agency_systems_may_call_the_broker(
    installation: InstallationUnderTest,
    lapd: AgencyAtWork,
    tmp_path: Path,
    kind: Kind,
    name: str,
) -> None:
    layout = installation.layout
    authority = Authority.load(layout.authority, layout.authority_key)
    issued = authority.issue(SpiffeId(TRUST_DOMAIN, kind, name), SystemClock().now(), listens=False)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    write_public(certificate, issued.certificate_pem)
    write_secret(key, issued.key_pem)
    tls = TlsFiles(certificate=certificate, key=key, authority=layout.authority)
    settings = lapd.settings.model_copy(update={"tls": tls})
    prepared = lapd.sealed(own_case(), probe())
    token = lapd.provider.token(OFFICER, prepared.search_id)
    async with at_work(installation, LAPD, settings) as other:
        client, search_id = other.client, prepared.search_id
        for calling in (
            client.submit(prepared, token),
            client.check(prepared.facts, token),
            client.get(search_id),
            client.cancel(search_id),
            client.list(),
            client.systems(),
            anext(client.watch(search_id)),
        ):
            with pytest.raises(NotAllowed) as caught:
                await calling
            assert caught.value.reason == "CALLER_NOT_ALLOWED"
    assert not await lapd.kinds(search_id)
