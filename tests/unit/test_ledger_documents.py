"""What counts from the moment that a document is on record."""

from collections.abc import Mapping, Sequence

import pytest

from countersign.ledger.v1.append_pb2 import PendingEntry, PublishDocumentRequest
from countersign.ledger.v1.entry_pb2 import Entry
from directive.holdings import Holdings
from ledger.documents import DocumentService
from ledger.entry import CompletedEntry, Completer, Opening
from ledger.sequencer import Placed
from shared.errors import InvalidRequest
from support.clocks import ClockThatStandsStill
from support.documents import handed_in, published
from support.ledgers import BROKER

INDEX = 7


class WriterThatPlaces:
    """Puts each entry on record at one index."""

    async def append(self, entries: Sequence[CompletedEntry]) -> list[Placed]:
        """Each is new."""
        return [Placed(INDEX, one.leaf, "", existing=False) for one in entries]


async def none_opened(indexes: Sequence[int]) -> Mapping[int, Sequence[Opening]]:
    assert not indexes
    return {}


async def test_a_document_counts_before_anybody_is_told_of_it() -> None:
    """While others catch up, a decision that did not know it would still come onto record."""
    refused: list[str] = []
    decided = Entry()
    decided.search_decided.SetInParent()

    async def heard() -> None:
        with pytest.raises(InvalidRequest) as error:
            service.check_newest(decided, "entry")
        refused.append(error.value.reason)

    service = DocumentService(
        Completer(BROKER, ClockThatStandsStill(), publisher=True),
        WriterThatPlaces(),  # type: ignore[arg-type]  # stands in
        None,  # type: ignore[arg-type]  # the first document asks no archive
        none_opened,
        heard=heard,
    )
    service.check_newest(decided, "entry")
    first = published(handed_in(by=""), Holdings())
    first.ClearField("recorded_at")
    await service.publish(PublishDocumentRequest(document=PendingEntry(entry=first)))
    assert refused == ["DECISION_OUTDATED"]
