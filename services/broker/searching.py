"""A search from its submission to its order.

Order of the durable steps, and what a crash between them leaves:
1. the decision is asked for; nothing is on record yet and a retry starts afresh;
2. SearchDecided is appended under the search's key; a crash now leaves a permitted search without an
   order, which a retry with the same id sends, or which expires on record;
3. the order, which carries the receipt of 2, is published; a crash now leaves an order that the
   connector answers, and the answer is taken in after the restart.
The caller hears only after 3, or after 2 when refused.
"""

import asyncio
from collections import ChainMap
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from broker.admission import Admission, Admitted, Call
from broker.ending import Ending
from broker.ledger import Ledger
from broker.limits import Limits
from broker.ordering import Ordering
from broker.policy import Policy
from broker.record import (
    Record,
    Referral,
    checked_entry,
    decided_entry,
    summary_of,
    undecided_entry,
)
from broker.referring import Referring
from broker.streams import order_subject
from broker.watch import KnownSearches
from countersign.broker.v1.broker_pb2 import (
    CheckSearchRequest,
    CheckSearchResponse,
    SubmitSearchRequest,
)
from countersign.broker.v1.peer_pb2 import ReferSearchRequest
from countersign.ledger.v1.append_pb2 import Appended, PendingEntry
from countersign.policy.v1.policy_pb2 import EvaluateRequest, EvaluateResponse, Peer
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import SealedPayload, SearchFacts
from shared import telemetry
from shared.binding import bind, request_digest
from shared.bus import Bus
from shared.clock import Clock, put_stamp
from shared.errors import Broken, FieldViolation, InvalidRequest, ServiceError, Unavailable
from shared.referral import VALIDITY_S, NotProved, ProvedReferral, require_same_meaning
from shared.registry import TrustRoots
from shared.signing import SigningKey, key_id
from shared.unknown_fields import has_unknown_fields

_decisions = telemetry.meter.create_counter(
    "countersign.decisions", unit="{decision}", description="Decisions recorded, by outcome"
)

DECIDE_TRIES: Final = 5
"""A document may be published between a decision and its record; many are at an installation's start."""

_OUTCOMES: Final = {
    number: {"outcome": name.removeprefix("DECISION_OUTCOME_").lower()}
    for name, number in DecisionOutcome.items()
}


@dataclass(frozen=True)
class _Asked:
    """A search that may be asked for, by whoever asks."""

    admitted: Admitted
    bound: bytes
    digest: bytes
    sealed_probe: SealedPayload
    referral: Referral | None
    asked_at: Peer | None
    """Who is asked at the other installation of a search between two."""
    proved: ProvedReferral | None = None
    """None for one that was asked for here."""

    @property
    def referred_by(self) -> str:
        """Trust domain of the peer that it comes from; empty for none."""
        by = self.referral.by if self.referral is not None else None
        return by.peer if by is not None else ""


class Searching:
    """Checks and submits searches."""

    def __init__(
        self,
        *,
        bus: Bus,
        ledger: Ledger,
        policy: Policy,
        admission: Admission,
        known: KnownSearches,
        ending: Ending,
        trust: TrustRoots,
        signing_key: SigningKey,
        clock: Clock,
        limits: Limits,
        default_wait_s: float,
        referring: Referring,
        witnesses_wait_s: float = 0.0,
        make_queue: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`make_queue` sees to it that a system can be sent orders; None where all can."""
        self._bus = bus
        self._ledger = ledger
        self._policy = policy
        self._admission = admission
        self._known = known
        self._ending = ending
        systems = ChainMap(*({**peer.systems} for peer in trust.peers), {**trust.systems})
        self._key_ids = {name: key_id(keys.sealing_public_key) for name, keys in systems.items()}
        self._referring = referring
        self._ordering = Ordering(signing_key, clock)
        self._clock = clock
        self._limits = limits
        self._default_wait_s = default_wait_s
        self._witnesses_wait_s = witnesses_wait_s
        self._make_queue = make_queue
        self._submissions: dict[str, asyncio.Task[Record]] = {}
        # A counter that begins with its first decision does not rise by it in Prometheus' eyes.
        for number, outcome in _OUTCOMES.items():
            if number != DecisionOutcome.DECISION_OUTCOME_UNSPECIFIED:
                _decisions.add(0, outcome)

    async def check(self, caller: Call, request: CheckSearchRequest) -> CheckSearchResponse:
        """Asks every party and records that it was asked. Sends nothing."""
        _check_known(request.facts)
        admitted = await self._admission.admit(caller, request.facts, request.officer_token)
        evaluated, appended = await self._recorded(
            admitted,
            self._clock.now(),
            lambda evaluated: checked_entry(
                request.facts, admitted.officer, evaluated, admitted.token_sha256
            ),
            self._referring.asked_at(request.facts.system),
        )
        return CheckSearchResponse(decision=evaluated.decision, receipt=appended.receipt)

    async def submit(self, caller: Call, request: SubmitSearchRequest) -> Record:
        """Has the search decided, recorded and, if permitted, sent."""
        search_id = request.facts.search_id
        return await self._one_at_a_time(search_id, lambda: self._submit(caller, request))

    async def take_referral(
        self, caller: Call, proved: ProvedReferral, request: ReferSearchRequest
    ) -> Record:
        """As `submit`, of what a peer refers to us: its parties have spoken, and ours are asked.

        Raises NotProved as well.
        """
        deadline = proved.decided.deadline.seconds
        if deadline > self._clock.now().timestamp() + VALIDITY_S:
            # By our clock as well: what the peer's ledger takes for now is the peer's word.
            raise NotProved("PEER_DEADLINE", "the search is to wait for longer than any may")
        facts, officer = proved.request.facts, proved.request.officer
        asked = _Asked(
            admitted=self._admission.referred(caller, facts, officer),
            bound=request.bound_request,
            digest=proved.request_sha256,
            sealed_probe=request.sealed_probe,
            referral=Referral(proved.by.peer, proved.by),
            asked_at=self._referring.vouched(proved),
            proved=proved,
        )
        return await self._one_at_a_time(facts.search_id, lambda: self._carry_out(asked))

    async def _one_at_a_time(
        self, search_id: str, carry_out: Callable[[], Coroutine[None, None, Record]]
    ) -> Record:
        while (earlier := self._submissions.get(search_id)) is not None:
            await asyncio.wait([earlier])
        # Apart from the caller: one that gives up must not leave a recorded decision without its order.
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Record] = loop.create_future()
        task = loop.create_task(carry_out(), name=search_id)
        self._submissions[search_id] = task
        task.add_done_callback(partial(self._submitted, search_id, told))
        return await told

    def _submitted(
        self, search_id: str, told: asyncio.Future[Record], task: asyncio.Task[Record]
    ) -> None:
        del self._submissions[search_id]
        if task.cancelled():
            told.cancel()
        elif (error := task.exception()) is not None:  # a caller that has gone leaves no warning
            if not told.done():
                told.set_exception(error)
        elif not told.done():
            told.set_result(task.result())

    async def _submit(self, caller: Call, request: SubmitSearchRequest) -> Record:
        facts = request.facts
        _check_known(facts)
        admitted = await self._admission.admit(caller, facts, request.officer_token)
        self._check_sealed_to(request)
        bound = bind(
            facts,
            admitted.officer,
            request.sealed_probe,
            request.answer_public_key,
            request.salt,
        )
        asked_at = self._referring.asked_at(facts.system)
        return await self._carry_out(
            _Asked(
                admitted=admitted,
                bound=bound,
                digest=request_digest(bound),
                sealed_probe=request.sealed_probe,
                referral=None if asked_at is None else Referral(asked_at.trust_domain),
                asked_at=asked_at,
            )
        )

    async def _carry_out(self, asked: _Asked) -> Record:
        facts, search_id = asked.admitted.facts, asked.admitted.facts.search_id
        with self._limits.submitting(search_id, facts.origin_agency, asked.admitted.officer):
            return await self._go_on(asked, search_id)

    async def _go_on(self, asked: _Asked, search_id: str) -> Record:
        record = self._known.get(search_id)
        if record is None:
            record = await self._decide(asked)
        elif record.is_open:
            # Submitted again, and another broker may have ended it: its order must not be sent again.
            record = await self._ending.as_recorded(record)
        if (record.decision.request_sha256, record.referred_by) != (
            asked.digest,
            asked.referred_by,
        ):
            raise await self._admission.conflict(asked.admitted.call, record, asked.digest)
        # What is at hand may have changed while the decision was being recorded.
        record = self._known.get(search_id) or record
        if record.is_open and record.deadline > self._clock.now():
            try:
                await self._send_on(record, asked)
            finally:
                record = self._known.get(search_id) or record
                if not record.is_open and not record.answer_sha256:
                    await self._take_back(record)
        return record

    async def _take_back(self, record: Record) -> None:
        """Undoes the sending of what was withdrawn, or has expired, in between: the undoing came first."""
        if record.referred_to:
            if record.end is not None and not record.end.HasField("search_failed"):
                await self._referring.withdraw(record)
        else:
            await self._ending.purge(record)

    async def _send_on(self, record: Record, asked: _Asked) -> None:
        if record.referred_to:
            await self._referring.refer(record, asked.bound, asked.sealed_probe)
        else:
            await self._send(record, asked.bound, asked.sealed_probe)

    def _check_sealed_to(self, request: SubmitSearchRequest) -> None:
        wanted = self._key_ids.get(request.facts.system)
        if wanted is not None and request.sealed_probe.key_id != wanted:
            raise InvalidRequest(
                "PROBE_SEALED_TO_OTHER_KEY",
                "the probe is not sealed to the system's key; take the key from the trust roots",
            )

    async def _decide(self, asked: _Asked) -> Record:
        admitted, facts = asked.admitted, asked.admitted.facts
        now = self._clock.now()
        wait_s = self._default_wait_s
        if facts.HasField("expires_after"):
            wait_s = facts.expires_after.ToTimedelta().total_seconds()
        deadline = datetime.fromtimestamp(now.timestamp() + wait_s, now.tzinfo)
        if asked.proved is not None:
            # The peer waits no longer.
            deadline = asked.proved.decided.deadline.ToDatetime(UTC)

        def entry(evaluated: EvaluateResponse) -> PendingEntry:
            if asked.proved is not None:
                require_same_meaning(asked.proved, summary_of(facts, evaluated))
            return decided_entry(
                facts,
                admitted.officer,
                evaluated,
                asked.digest,
                deadline,
                admitted.token_sha256,
                asked.referral,
            )

        evaluated, appended = await self._recorded(admitted, now, entry, asked.asked_at)
        if appended.existing:
            # Decided before, by another broker or before a restart: that decision stands.
            found = await self._ledger.look_up(facts.search_id)
            if found is None:
                raise Broken("LEDGER_ANSWER", "the ledger has the key but not the search")
            record = found
        else:
            record = Record.from_receipts(appended.receipt, None)
            _decisions.add(1, _OUTCOMES[evaluated.decision.outcome])
        self._known.put(record)
        return record

    async def _recorded(
        self,
        admitted: Admitted,
        now: datetime,
        entry: Callable[[EvaluateResponse], PendingEntry],
        asked_at: Peer | None = None,
    ) -> tuple[EvaluateResponse, Appended]:
        """The decision, and its entry. What was decided without the newest document is decided anew.

        Neither is begun once the caller has given up; an entry that was begun is waited for all the same.
        """
        until = admitted.call.until
        request = EvaluateRequest(officer=admitted.officer)
        # Copied into place: given to the constructor, they are serialised and read again.
        request.facts.CopyFrom(admitted.facts)
        put_stamp(request.at, now)
        if asked_at is not None:
            request.peer.CopyFrom(asked_at)
        for _ in range(DECIDE_TRIES):
            try:
                evaluated = await self._policy.evaluate(request, until)
            except ServiceError as error:
                raise await self._undecided(request) from error
            decision = evaluated.decision
            known = decision.documents_index if decision.HasField("documents_index") else None
            try:
                await self._admission.confirm(admitted, known)
            except Unavailable as error:
                raise await self._undecided(request, error.reason) from error
            try:
                return evaluated, await self._ledger.append(entry(evaluated), until)
            except InvalidRequest as error:
                if error.reason != "DECISION_OUTDATED":
                    raise
                newest = error.metadata.get("documents_index", "")
                if newest.isdecimal():
                    request.documents_index = int(newest)
        raise await self._undecided(request)

    async def _undecided(
        self, request: EvaluateRequest, reason: str = "POLICY_UNAVAILABLE"
    ) -> Unavailable:
        """What the caller is told, once it is on record."""
        undecided = undecided_entry(request.facts, request.officer, reason)
        await self._ledger.append(undecided)
        return Unavailable(
            reason,
            "no decision could be made, so nothing was sent; try again with the same id",
            retry_after_s=1,
        )

    async def _send(self, record: Record, bound: bytes, sealed_probe: SealedPayload) -> None:
        receipt = record.decided
        if self._witnesses_wait_s:
            # First: a connector that demands witnesses would refuse the order, and that is an end.
            receipt = await self._ledger.witnessed(record, self._witnesses_wait_s)
        order = await self._ordering.order(record, receipt, bound, sealed_probe)
        if self._make_queue is not None:
            await self._make_queue(record.system)
        await self._bus.publish_durable(
            order_subject(record.system, record.search_id),
            order,
            message_id=f"order/{record.search_id}",
            template="orders.{system}.{search}",
        )


def _check_known(facts: SearchFacts) -> None:
    """What we cannot read we could neither have judged nor keep out of the public record."""
    if has_unknown_fields(facts):
        raise InvalidRequest(
            "INVALID_REQUEST",
            "the facts say more than this broker knows of; it must not be older than who asks",
            violations=[
                FieldViolation("facts", "has a field that is not in this broker's contracts")
            ],
        )
