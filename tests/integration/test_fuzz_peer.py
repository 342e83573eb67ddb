"""Anything at all, sent to the door that is another organisation's: only typed errors, and searches go on."""

from collections import Counter
from pathlib import Path

from hypothesis import strategies as st

from countersign.broker.v1.broker_pb2 import Search
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from countersign.client.prepare import PreparedSearch, seal_search
from shared.binding import bind
from shared.referral import keys_of
from shared.rejections import RATE
from shared.rpc import open_channel
from support.agencies import AgencyAtWork, at_work
from support.brokers import OFFICER, own_case
from support.drawn_messages import damaged
from support.federations import SYSTEM, federation
from support.fuzzing import attack, caller_of, methods_of
from support.installations import LAPD, LASD


def sealed(lapd: AgencyAtWork) -> PreparedSearch:
    """A search of the system at the peer."""
    keys = keys_of(lapd.client.trust, SYSTEM)
    assert keys is not None
    return seal_search(own_case(), b"a picture", keys.sealing_public_key)


async def answered(lapd: AgencyAtWork, prepared: PreparedSearch) -> Search:
    """The search, once it has an answer."""
    await lapd.submit(prepared)
    search, _ = await lapd.ended(prepared)
    return search


def referral(prepared: PreparedSearch, search: Search) -> bytes:
    """What our broker sent the peer of it."""
    asked = prepared.request("")
    request = ReferSearchRequest(
        bound_request=bind(
            asked.facts, OFFICER, asked.sealed_probe, asked.answer_public_key, asked.salt
        ),
        sealed_probe=asked.sealed_probe,
        decision_receipt=search.decision_receipt,
    )
    return request.SerializeToString()


async def test_a_peers_broker_that_sends_anything_is_answered_as_the_contract_says(
    tmp_path: Path,
) -> None:
    async with (
        federation(tmp_path) as (west, east),
        at_work(west.installation, LAPD, west.client(LAPD)) as lapd,
        at_work(east.installation, LASD, east.client(LASD)) as lasd,
        open_channel(f"127.0.0.1:{east.port}", west.tls) as door,
    ):
        prepared = sealed(lapd)
        sound = referral(prepared, await answered(lapd, prepared))
        before = [leaf async for leaf in lasd.ledger.leaves()]
        methods = {method.name: method for method in await methods_of(door)}
        assert methods.keys() == {"ReferSearch", "GetReferredSearch", "WithdrawReferredSearch"}
        seen = Counter[str]()
        for method in methods.values():
            await attack(method.input_type, caller_of(door, method, seen))
        assert seen["INVALID_ARGUMENT"], seen
        # Of what is nearly right each receipt, digest and seal is looked at.
        refer = methods["ReferSearch"]
        taken = Counter[str]()
        send = caller_of(door, refer, taken)
        await send(sound)
        assert taken == {"OK": 1}, "sent again it is the same search"
        await attack(refer.input_type, send, damaged(st.just(sound)))
        added = [leaf async for leaf in lasd.ledger.leaves()][len(before) :]
        assert len(added) <= RATE.burst, "what is turned away cannot fill the ledger"
        assert (await answered(lapd, sealed(lapd))).answer.answer
