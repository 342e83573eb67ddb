"""While it is not known who may read openings, nobody does."""

import asyncio
import contextlib

import pytest

from ledger.documents import key_after
from ledger.registered import OwnRegistry
from ledger.rights import Rights
from registry.public import PublicDocuments
from shared.clock import SystemClock
from shared.errors import NotReady, Unavailable
from shared.identity import SpiffeId
from shared.registry import Registry, TrustRoots
from shared.tokens import LEDGER_AUDIENCE, OfficerTokens
from support.archives import ArchiveThatLeavesOneOut
from support.ledgers import ORIGIN
from support.waiting import until

TRUST = TrustRoots(log_verifier_keys=("not used here",), broker_verify_keys=(bytes(32),))
COMMISSION = SpiffeId("countersign.test", "oversight", "police-commission")


def own(archive: ArchiveThatLeavesOneOut) -> OwnRegistry:
    tokens = OfficerTokens(Registry(agencies={}), TRUST, SystemClock(), LEDGER_AUDIENCE)
    return OwnRegistry(PublicDocuments(TRUST, ORIGIN), tokens, archive, key_after, 0.001)  # type: ignore[arg-type]  # stands in


@pytest.mark.promise(7)
async def test_nobody_has_a_right_before_the_registry_was_read_and_after_it_could_not_be() -> None:
    archive = ArchiveThatLeavesOneOut()
    registered = own(archive)
    rights = Rights(lambda: registered.current().registry)
    with pytest.raises(Unavailable):
        rights.scope(COMMISSION, "disclose")
    archive.silent = True
    await registered.catch_up()
    with pytest.raises(Unavailable):
        rights.scope(COMMISSION, "disclose")
    archive.silent = False
    await registered.catch_up()
    with pytest.raises(NotReady) as refused:
        rights.scope(COMMISSION, "disclose")
    assert refused.value.reason == "REGISTRY_NOT_APPLIED"


async def test_what_could_not_be_read_is_read_again_by_itself() -> None:
    """No document may follow for weeks, and a question reads nothing."""
    archive = ArchiveThatLeavesOneOut()
    archive.silent = True
    registered = own(archive)
    keeping = asyncio.create_task(registered.keep_read())
    try:
        await until(lambda: asked(archive, 3))
        with pytest.raises(Unavailable):
            registered.current()
        archive.silent = False
        await until(lambda: not_applied(registered))
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


async def asked(archive: ArchiveThatLeavesOneOut, times: int) -> bool:
    return archive.asked >= times


async def not_applied(registered: OwnRegistry) -> bool:
    """It was read, and found to leave a document out."""
    try:
        registered.current()
    except NotReady as error:
        return error.reason == "REGISTRY_NOT_APPLIED"
    except Unavailable:
        return False
    return False
