"""What one piece of work does: as an agency's system does it, with everything verified."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from countersign.broker.v1 import broker_pb2 as pb
from countersign.client import (
    Client,
    PreparedSearch,
    VerificationError,
    verify_check,
    verify_search,
)
from countersign.client.ledger import LedgerClient
from countersign.client.prepare import seal_search, sealing_key
from countersign.client.verify import checkpoint_of
from countersign.connector.v1.connector_pb2 import FailureReason
from countersign.load.measured import PERMITTED, Measured, Step
from countersign.load.mix import Kind
from countersign.load.tickets import Ticket
from countersign.type.v1.decision_pb2 import DecisionOutcome
from countersign.type.v1.search_pb2 import SearchFacts
from shared.entry_facts import short_name
from shared.errors import Overloaded, ServiceError
from tlog.errors import TlogError
from tlog.merkle import leaf_hash, verify_inclusion

STRIDE: Final = 7_919
"""A prime: entries that are read lie all over the ledger, not in one page of it."""


@dataclass(frozen=True)
class Case:
    """What is searched for."""

    facts: SearchFacts
    """As an officer would state them; the id is each search's own."""
    probes: Sequence[bytes]
    """Clean pictures, taken by turns."""
    wait_s: float
    """How long an answer may take."""


class Load:
    """All kinds of work, as one agency's system over one connection to each server."""

    def __init__(
        self,
        case: Case,
        servers: tuple[Client, LedgerClient],
        tickets: Iterator[Ticket],
        measured: Measured,
        now: Callable[[], float],
    ) -> None:
        """Raises ProbeRefused when the system's key is not known."""
        self._case = case
        self._client, self._ledger = servers
        self._tickets = tickets
        self._measured = measured
        self._now = now
        self._probes = itertools.cycle(case.probes)
        self._sealing_key = sealing_key(self._client.trust, case.facts.system)
        self._reads = itertools.count()
        self._work = {
            Kind.SEARCH: self._search,
            Kind.CHECK: self._check,
            Kind.FORBIDDEN: self._forbidden,
            Kind.READ: self._read,
        }

    async def one(self, kind: Kind, intended: float) -> None:
        """Does one that was to begin then; what goes wrong is counted by its reason."""
        measured = self._measured
        measured.begun[kind] += 1
        self._took(Step.BEGUN, intended)
        try:
            await self._work[kind](intended)
        except (ServiceError, VerificationError) as error:
            measured.failed(kind, error.reason, by_limit=isinstance(error, Overloaded))
        else:
            measured.right[kind] += 1

    def _took(self, step: Step, intended: float) -> None:
        self._measured.took(step, self._now() - intended)

    def _facts(self, ticket: Ticket) -> SearchFacts:
        facts = SearchFacts()
        facts.CopyFrom(self._case.facts)
        facts.search_id = ticket.search_id
        return facts

    async def _submitted(self, facts: SearchFacts, token: str) -> tuple[PreparedSearch, pb.Search]:
        prepared = seal_search(facts, next(self._probes), self._sealing_key)
        return prepared, await self._client.submit(prepared, token)

    async def _search(self, intended: float) -> None:
        ticket = next(self._tickets)
        prepared, found = await self._submitted(self._facts(ticket), ticket.token)
        self._took(Step.DECIDED, intended)
        # Also when it has ended already: only here does the answer come with it.
        if found.state != pb.SEARCH_STATE_REFUSED:
            found = await self._client.wait(ticket.search_id, self._case.wait_s)
        if not found.HasField("answer"):
            verify_search(found, ticket.search_id, self._client.trust, prepared, ticket.officer)
            state = pb.SearchState.Name(found.state).removeprefix("SEARCH_STATE_")
            raise VerificationError(f"SEARCH_{state}", "there is no answer")
        opened = self._client.open_answer(prepared, found, ticket.officer)
        if opened.failure is not None:
            reason = short_name(FailureReason, opened.failure.reason)
            raise VerificationError(f"SEARCH_FAILED_{reason}", "the system gave no list")
        self._took(Step.ANSWERED, intended)

    async def _check(self, intended: float) -> None:
        ticket = next(self._tickets)
        facts = self._facts(ticket)
        answer = await self._client.check(facts, ticket.token)
        verify_check(answer, facts, self._client.trust)
        if answer.decision.outcome == DecisionOutcome.DECISION_OUTCOME_REFUSED:
            raise VerificationError("CHECK_REFUSED", "the parties would refuse it")
        self._took(Step.CHECKED, intended)

    async def _forbidden(self, intended: float) -> None:
        ticket = next(self._tickets)
        facts = self._facts(ticket)
        # Unknown is never read as "for ourselves", whatever the directives are.
        facts.ClearField("beneficiary_agency")
        prepared, found = await self._submitted(facts, ticket.token)
        trust = self._client.trust
        verified = verify_search(found, ticket.search_id, trust, prepared, ticket.officer)
        if verified.state != pb.SEARCH_STATE_REFUSED:
            raise VerificationError(PERMITTED, "nobody said for whom the search is made")
        self._took(Step.REFUSED, intended)

    async def _read(self, intended: float) -> None:
        newest = await self._ledger.checkpoint()
        tree = checkpoint_of(newest.checkpoint, self._client.trust)
        index = next(self._reads) * STRIDE % tree.size
        record = await self._ledger.entry(index)
        proof = await self._ledger.inclusion_proof(index, tree.size)
        try:
            verify_inclusion(
                leaf_hash(record.leaf), index, tree.size, list(proof.hashes), tree.root
            )
        except TlogError as error:
            raise VerificationError("ENTRY_NOT_PROVED", str(error)) from error
        self._took(Step.READ, intended)
