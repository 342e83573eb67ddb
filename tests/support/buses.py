"""A bus within the test, with a ledger and a policy service behind it that can be made to fail.

It keeps what was asked and published, in order, so that a test can say what must come before what.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from countersign.ledger.v1.append_pb2 import (
    AppendRequest,
    AppendResponse,
    GetReceiptsRequest,
    GetReceiptsResponse,
    ListOpenSearchesRequest,
    ListOpenSearchesResponse,
    ListSearchesRequest,
    ListSearchesResponse,
    ListTakenBackSearches,
    LookUpSearchRequest,
    LookUpSearchResponse,
)
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1.policy_pb2 import (
    EvaluateBatchRequest,
    EvaluateBatchResponse,
    EvaluateRequest,
    EvaluateResponse,
    OfficerAnswer,
    Parties,
)
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Obligation,
    Receipt,
    Seat,
    VerdictOutcome,
)
from shared.bus import Forbidden
from shared.errors import InvalidRequest, Unavailable
from shared.stored import Stored

PERMITTED = DecisionOutcome.DECISION_OUTCOME_PERMITTED
REFUSED = DecisionOutcome.DECISION_OUTCOME_REFUSED
REFERRED = DecisionOutcome.DECISION_OUTCOME_REFERRED


class LedgerInMemory:
    """Entries by index, with idempotency keys; `lost` and `kept_but_failed` break the next appends."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.keys: dict[str, int] = {}
        self.sensitive: list[list[str]] = []
        """Names of what each entry only commits to."""
        self.lost = 0
        self.kept_but_failed = 0
        self.documents = 0
        """Index of the newest document that a decision must know."""
        self.witnessed = True
        """Whether witnesses cosign what is on record."""
        self.witnesses_see: int | None = None
        """The only entry of which there are receipts with witnesses, whichever was asked for."""
        self.documents_to_come = 0
        """So many are published, one each time that a decision is refused for not knowing the newest."""

    def append(self, request: AppendRequest) -> AppendResponse:
        """Appends like the ledger service."""
        if self.lost:
            self.lost -= 1
            raise Unavailable("SERVICE_UNAVAILABLE", "the ledger is down")
        for pending in request.entries:
            self._check_newest(pending.entry)
        response = AppendResponse()
        for pending in request.entries:
            existing = pending.idempotency_key in self.keys
            if existing:
                index = self.keys[pending.idempotency_key]
            else:
                index = len(self.entries)
                entry = Entry()
                entry.CopyFrom(pending.entry)
                entry.schema_epoch = 1
                self.entries.append(entry)
                self.sensitive.append([one.field for one in pending.sensitive])
                if pending.idempotency_key:
                    self.keys[pending.idempotency_key] = index
            response.appended.add(receipt=self.receipt(index), existing=existing)
        if self.kept_but_failed:
            self.kept_but_failed -= 1
            raise Unavailable("SERVICE_UNAVAILABLE", "the answer was lost")
        return response

    def _check_newest(self, entry: Entry) -> None:
        kind = entry.WhichOneof("event")
        if kind not in ("search_checked", "search_decided"):
            return
        decision: Decision = getattr(entry, kind).decision
        newest = self.documents
        if decision.HasField("documents_index") and decision.documents_index != newest:
            if self.documents_to_come:
                self.documents_to_come -= 1
                self.documents += 1
            raise InvalidRequest(
                "DECISION_OUTDATED", "it is old", metadata={"documents_index": str(newest)}
            )

    def receipt(self, index: int) -> Receipt:
        """A receipt without a proof."""
        return Receipt(index=index, leaf=self.entries[index].SerializeToString())

    def receipts(self, request: GetReceiptsRequest) -> GetReceiptsResponse:
        """Receipts with witnesses, as far as a receipt without a proof can show any."""
        only = self.witnesses_see
        receipts = [self.receipt(one if only is None else only) for one in request.indexes]
        for one in receipts:
            one.tlog_proof = "cosigned" if self.witnessed else ""
        lacking = "" if self.witnessed else "witness w1 has not cosigned"
        return GetReceiptsResponse(receipts=receipts, witnessed=self.witnessed, lacking=lacking)

    def look_up(self, request: LookUpSearchRequest) -> LookUpSearchResponse:
        """What is on record of a search."""
        response = LookUpSearchResponse()
        decided = self.keys.get(f"decided/{request.search_id}")
        ended = self.keys.get(f"end/{request.search_id}")
        if decided is not None:
            response.decided.CopyFrom(self.receipt(decided))
        if ended is not None:
            response.ended.CopyFrom(self.receipt(ended))
        return response

    def list_open(self, request: ListOpenSearchesRequest) -> ListOpenSearchesResponse:
        """Permitted searches without an end, or those that were withdrawn from peers, one by one."""
        if request.HasField("taken_back"):
            return self._list_taken_back(request.taken_back)
        response = ListOpenSearchesResponse()
        for index, entry in enumerate(self.entries):
            permitted = entry.search_decided.decision.outcome == PERMITTED
            if permitted and f"end/{entry.search_id}" not in self.keys:
                response.decided.append(self.receipt(index))
        return response

    def _list_taken_back(self, wanted: ListTakenBackSearches) -> ListOpenSearchesResponse:
        response = ListOpenSearchesResponse(tree_size=len(self.entries))
        for index in reversed(range(wanted.start_index, wanted.before_index or len(self.entries))):
            if self.entries[index].HasField("search_withdrawn"):
                asked = LookUpSearchRequest(search_id=self.entries[index].search_id)
                response.taken_back.append(self.look_up(asked))
                response.before_index = index
                break
        return response

    def list_searches(self, request: ListSearchesRequest) -> ListSearchesResponse:
        """An agency's searches, newest first."""
        response = ListSearchesResponse()
        before = request.before_index or len(self.entries)
        for index in reversed(range(before)):
            entry = self.entries[index]
            mine = entry.search_decided.summary.origin_agency == request.origin_agency
            if entry.HasField("search_decided") and mine:
                found = self.look_up(LookUpSearchRequest(search_id=entry.search_id))
                response.searches.append(found)
            if len(response.searches) == request.page_size:
                break
        return response

    def kinds(self) -> list[str]:
        """What happened, in order."""
        return [str(entry.WhichOneof("event")) for entry in self.entries]


class PolicyThatSays:
    """Answers every question alike."""

    def __init__(self, outcome: DecisionOutcome.ValueType = PERMITTED) -> None:
        self.outcome = outcome
        self.down = False
        self.obligations: list[Obligation] = []
        """What comes with each decision."""
        self.is_of_the_last_release = False
        self.let_go: set[str] = set()
        """Officers that the registry has no more."""
        self.documents: int | None = None
        """Index of the newest document that it has heard of; it hears of what it is asked to know."""

    def evaluate_batch(self, batch: EvaluateBatchRequest) -> EvaluateBatchResponse:
        """A decision for each."""
        if self.down:
            raise Unavailable("SERVICE_UNAVAILABLE", "the policy service is down")
        if self.is_of_the_last_release and not batch.requests:
            raise InvalidRequest("INVALID_REQUEST", "the batch has the wrong size")
        responses = [self.evaluate(request) for request in batch.requests]
        officers = [OfficerAnswer(known=one.officer not in self.let_go) for one in batch.officers]
        return EvaluateBatchResponse(responses=responses, officers=officers)

    def evaluate(self, request: EvaluateRequest) -> EvaluateResponse:
        """One verdict, and the decision that follows from it."""
        if self.documents is not None and request.HasField("documents_index"):
            self.documents = max(self.documents, request.documents_index)
        decision = Decision(
            outcome=self.outcome,
            evaluated_at=request.at,
            documents_index=self.documents,
            obligations=self.obligations,
        )
        if request.peer.refer:
            decision.verdicts.add(
                seat=Seat.SEAT_OPERATOR,
                outcome=VerdictOutcome.VERDICT_OUTCOME_CANNOT_TELL,
                asked_at=request.peer.trust_domain,
                faults=["ASKED_AT_PEER"],
            )
        says = (
            VerdictOutcome.VERDICT_OUTCOME_PERMIT
            if self.outcome in (PERMITTED, REFERRED)
            else VerdictOutcome.VERDICT_OUTCOME_FORBID
        )
        decision.verdicts.add(
            seat=Seat.SEAT_ORIGIN, party=request.facts.origin_agency, outcome=says
        )
        parties = Parties(origin_agency=request.facts.origin_agency)
        return EvaluateResponse(decision=decision, parties=parties)


class BusInMemory:
    """Stands in for shared.bus.Bus."""

    def __init__(self) -> None:
        self.ledger = LedgerInMemory()
        self.policy = PolicyThatSays()
        self.published: dict[str, bytes] = {}
        self.before_the_last: list[bytes] = []
        """Answers that a connector published before its last."""
        self.happened: list[str] = []
        """Subjects asked and published, in order."""
        self.begun_within_s: dict[str, float | None] = {}
        """Within how long the newest question on each subject was to be begun."""
        self.publishing_fails = 0
        self.forbids_deletes = False
        """As one that was configured for 0.1."""
        self.delete_lost = 0
        self.deleted_but_failed = 0
        self._numbers: dict[str, int] = {}
        self.queues: set[str] = set()
        self.has_published = asyncio.Event()
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        """What to wait for before a subject is answered."""
        self._handlers: dict[str, Callable[[Any], Message]] = {
            "ledger.append": self.ledger.append,
            "ledger.get_receipts": self.ledger.receipts,
            "ledger.look_up_search": self.ledger.look_up,
            "ledger.list_open_searches": self.ledger.list_open,
            "ledger.list_searches": self.ledger.list_searches,
            "policy.evaluate": self.policy.evaluate_batch,
        }

    async def request(
        self,
        subject: str,
        message: Any,
        _response: Any,
        _timeout_s: float,
        begin_within_s: float | None = None,
    ) -> Any:
        """Asks the ledger or the policy service."""
        self.begun_within_s[subject] = begin_within_s
        if subject in self.before:
            await self.before[subject]()
        answer = self._handlers[subject](message)
        self.happened.append(subject)
        return answer

    async def make_queue(self, system: str) -> None:
        """Has a place for a system's orders."""
        self.queues.add(system)

    async def publish_durable(
        self, subject: str, data: bytes, message_id: str, template: str
    ) -> None:
        """Keeps the message."""
        del message_id, template
        if subject in self.before:
            await self.before[subject]()
        if subject.startswith("orders.") and subject.split(".")[1] not in self.queues:
            raise Unavailable("BUS_UNAVAILABLE", "no stream takes it")
        if self.publishing_fails:
            self.publishing_fails -= 1
            raise Unavailable("BUS_UNAVAILABLE", "the bus is down")
        self.published.setdefault(subject, data)
        self.has_published.set()
        self.happened.append(subject)

    async def last_message(self, _stream: str, subject: str) -> bytes | None:
        """What was published on a subject."""
        return self.published.get(subject)

    async def first_messages(self, _stream: str, subject: str, count_max: int) -> list[Stored]:
        """What was published on a subject, oldest first."""
        held = [Stored(0, data) for data in self.before_the_last]
        if subject in self.published:
            held.append(Stored(self.sequence_of(subject), self.published[subject]))
        return held[:count_max]

    async def purge(self, _stream: str, subject: str) -> None:
        """Forgets what was published on a subject, in which `*` stands for any word, as NATS has it."""
        words = ["[^.]+" if word in ("*", ">") else re.escape(word) for word in subject.split(".")]
        for one in [one for one in self.published if re.fullmatch("[.]".join(words), one)]:
            del self.published[one]

    def sequence_of(self, subject: str) -> int:
        """The number of what was published on a subject."""
        return self._numbers.setdefault(subject, len(self._numbers) + 1)

    async def may_delete(self, _stream: str) -> None:
        """Whether it lets the broker."""
        if self.forbids_deletes:
            raise Forbidden

    async def delete(self, _stream: str, sequence: int) -> None:
        """Forgets one message; `delete_lost` and `deleted_but_failed` break the next ones."""
        if self.forbids_deletes:
            raise Forbidden
        if self.delete_lost:
            self.delete_lost -= 1
            raise Unavailable("BUS_UNAVAILABLE", "the bus is down")
        for subject in [one for one, number in self._numbers.items() if number == sequence]:
            self.published.pop(subject, None)
        if self.deleted_but_failed:
            self.deleted_but_failed -= 1
            raise Unavailable("BUS_UNAVAILABLE", "the answer was lost")
