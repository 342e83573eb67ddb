"""The Python client of agency systems.

    async with Client.connect(ClientSettings.load(path)) as client:
        prepared = client.prepare(facts, picture)
        await client.submit(prepared, officer_token)
        search = await client.wait(prepared.search_id)
        answer = client.open_answer(prepared, search)

The client trusts its own files and nobody else: it seals the probe to the key in its trust roots, and
shows a candidate only after it has verified the connector's signature and the ledger's receipts.
"""

from countersign.client.calls import Client
from countersign.client.config import ClientSettings
from countersign.client.prepare import PreparedSearch, ProbeRefused, prepare
from countersign.client.search_ids import new_search_id
from countersign.client.verify import (
    OpenedAnswer,
    VerificationError,
    VerifiedSearch,
    open_answer,
    verify_check,
    verify_decision,
    verify_discharge,
    verify_receipt,
    verify_search,
)

__all__ = [
    "Client",
    "ClientSettings",
    "OpenedAnswer",
    "PreparedSearch",
    "ProbeRefused",
    "VerificationError",
    "VerifiedSearch",
    "new_search_id",
    "open_answer",
    "prepare",
    "verify_check",
    "verify_decision",
    "verify_discharge",
    "verify_receipt",
    "verify_search",
]
