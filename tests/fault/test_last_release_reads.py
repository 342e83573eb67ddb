"""What bears one signature over several is read by the last release, which may know nothing of it.

With an installation of both (`test_last_release`) few messages come together, and no answers at all.
"""

import asyncio
import json
from base64 import b64encode
from pathlib import Path

import pytest

from connector.runs import Run
from connector.together import signed_together
from countersign.connector.v1.connector_pb2 import SignedAnswer, SignedOrder
from shared.together import verify_answer
from support.brokers import BrokerOnTheTable
from support.last_release import last_release
from support.orders import NOW, OFFICER
from support.searches import SearchWorkshop

# Runs with the release's own code: its connector, its broker and its client.
READS = """
import json, pathlib, sys
from broker.answers import verified_answer
from broker.record import Record
from connector.proof import read_signed
from countersign.broker.v1.broker_pb2 import Search
from countersign.client.prepare import PreparedSearch
from countersign.client.verify import open_answer
from countersign.connector.v1.connector_pb2 import SignedOrder
from shared.registry import TrustRoots
from shared.signing import VerifyKey
given = json.loads(sys.argv[1])
key = VerifyKey(bytes.fromhex(given["broker"]))
for order in given["orders"]:
    read_signed(SignedOrder.FromString(bytes.fromhex(order)), {key.key_id: key})
folder, trust = pathlib.Path(given["folder"]), TrustRoots.load(pathlib.Path(given["trust"]))
for data in given["searches"]:
    search = Search.FromString(bytes.fromhex(data))
    record = Record.from_receipts(search.decision_receipt, None)
    verified_answer(search.answer, record, VerifyKey(bytes.fromhex(given["connector"])))
    prepared = PreparedSearch.load(folder, search.search_id)
    assert open_answer(prepared, search, given["officer"], trust).candidates
"""


async def orders(broker: BrokerOnTheTable) -> list[SignedOrder]:
    """Of searches that come at once."""
    prepared = [broker.prepared() for _ in range(2)]
    await asyncio.gather(
        *(broker.searching.submit(broker.call(), broker.request(one)) for one in prepared)
    )
    published = [broker.bus.published[f"orders.lacris.{one.search_id}"] for one in prepared]
    return [SignedOrder.FromString(data) for data in published]


def answers(one: SearchWorkshop, other: SearchWorkshop) -> list[SignedAnswer]:
    """To both, committed together."""
    runs = []
    for workshop in (one, other):
        signed = workshop.sign(workshop.answer())
        digest = verify_answer(one.connector.verify_key, signed)
        data = signed.SerializeToString()
        runs.append(Run(workshop.prepared.search_id, b"r" * 32, data, NOW, answer_sha256=digest))
    kept = signed_together(one.connector, runs)
    return [SignedAnswer.FromString(run.signed_answer) for run in kept]


def roots(workshop: SearchWorkshop) -> dict[str, object]:
    """As they stand in a file."""
    trust = workshop.trust
    return {
        "log_verifier_keys": trust.log_verifier_keys,
        "broker_verify_keys": [b64encode(key).decode() for key in trust.broker_verify_keys],
        "systems": {
            name: {
                "sealing_public_key": b64encode(keys.sealing_public_key).decode(),
                "answer_verify_key": b64encode(keys.answer_verify_key).decode(),
            }
            for name, keys in trust.systems.items()
        },
    }


@pytest.mark.fault
async def test_the_last_release_reads_orders_and_answers_that_were_signed_together(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    release = last_release(request.config.getoption("--last-release"), tmp_path / "release")
    broker, one = BrokerOnTheTable(), SearchWorkshop()
    other = one.another("00000000-0000-4000-8000-000000000002")
    ordered, answered = await orders(broker), answers(one, other)
    assert all(signed.HasField("together") for signed in (*ordered, *answered))
    searches = [
        workshop.end(workshop.decide(), signed)
        for workshop, signed in zip((one, other), answered, strict=True)
    ]
    for workshop in (one, other):
        workshop.prepared.save(tmp_path)
    trust = tmp_path / "trust.json"
    trust.write_text(json.dumps(roots(one)))
    given = {
        "broker": broker.order_key.verify_key.raw.hex(),
        "connector": one.connector.verify_key.raw.hex(),
        "orders": [signed.SerializeToString().hex() for signed in ordered],
        "searches": [search.SerializeToString().hex() for search in searches],
        "folder": str(tmp_path),
        "trust": str(trust),
        "officer": OFFICER,
    }
    done = release.run(READS, json.dumps(given))
    assert done.returncode == 0, done.stderr
