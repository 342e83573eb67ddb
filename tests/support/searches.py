"""A search as an honest broker would hand it out, and as one who would deceive the requester would.

`SearchWorkshop` holds every key of a small world, with a real log. Each part can be changed on its
way, and what comes after is then made from the changed part, as a forger with those keys would.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from countersign.broker.v1.broker_pb2 import CheckSearchResponse, Search, SearchState
from countersign.client.prepare import PreparedSearch, seal_search
from countersign.connector.v1.connector_pb2 import (
    Candidate,
    CandidateList,
    SearchAnswer,
    SignedAnswer,
)
from countersign.ledger.v1.entry_pb2 import Entry, SearchAnswered, SearchFailed, SearchSummary
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Receipt,
    Seat,
    Verdict,
    VerdictOutcome,
)
from shared.binding import bind, request_digest
from shared.registry import SystemKeys, TrustRoots
from shared.sealing import PrivateKey, candidates_info, seal
from shared.signing import ANSWER_CONTEXT, SigningKey
from support.orders import GALLERY, OFFICER, SYSTEM, facts, log_signer
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.merkle import TreeAtSize, leaf_hash, root_of_leaves
from tlog.note import NoteSigner, Signer
from tlog.proof import write_proof

ORDER_SHA256: Final = b"o" * 32
DECIDED_AT: Final = 1_800_000_000
END_STATES: Final = {
    "search_answered": SearchState.SEARCH_STATE_ANSWERED,
    "search_failed": SearchState.SEARCH_STATE_FAILED,
    "search_expired": SearchState.SEARCH_STATE_EXPIRED,
    "search_withdrawn": SearchState.SEARCH_STATE_WITHDRAWN,
}
PERMITTED: Final = Decision(
    outcome=DecisionOutcome.DECISION_OUTCOME_PERMITTED,
    verdicts=[
        Verdict(seat=Seat.SEAT_ORIGIN, outcome=VerdictOutcome.VERDICT_OUTCOME_PERMIT),
        Verdict(seat=Seat.SEAT_OPERATOR, outcome=VerdictOutcome.VERDICT_OUTCOME_PERMIT),
    ],
)


class LogInMemory:
    """A real log that nobody keeps on disk."""

    def __init__(self, signer: Signer, *beside: NoteSigner) -> None:
        self.signer = signer
        self._signers = (signer, *beside)
        self.leaves = [b"an earlier entry", b"another"]

    def append(self, entry: Entry) -> int:
        """The entry's index."""
        self.leaves.append(entry.SerializeToString(deterministic=True))
        return len(self.leaves) - 1

    def receipt(self, index: int) -> Receipt:
        """Proof that the entry is in the log as it stands."""
        hashes = [leaf_hash(leaf) for leaf in self.leaves]

        def subtree(level: int, number: int) -> bytes:
            return root_of_leaves(hashes[number << level : (number + 1) << level])

        tree = TreeAtSize(len(hashes), subtree)
        note = sign_checkpoint(
            Checkpoint(self.signer.verifier.name, len(hashes), tree.root), *self._signers
        )
        path = tree.inclusion_proof(index)
        return Receipt(
            index=index, leaf=self.leaves[index], tlog_proof=write_proof(index, path, note)
        )


@dataclass
class SearchWorkshop:
    """All keys of a small world, and the way from a prepared search to its answer."""

    log: LogInMemory = field(default_factory=lambda: LogInMemory(log_signer()))
    probes: PrivateKey = field(default_factory=PrivateKey.generate)
    connector: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.prepared: PreparedSearch = seal_search(facts(), b"a probe", self.probes.public_key)
        self.trust = TrustRoots(
            log_verifier_keys=(self.log.signer.verifier.vkey,),
            broker_verify_keys=(bytes(32),),
            systems={
                SYSTEM: SystemKeys(
                    sealing_public_key=self.probes.public_key,
                    answer_verify_key=self.connector.verify_key.raw,
                )
            },
        )

    def another(self, search_id: str) -> "SearchWorkshop":
        """Another search in the same world."""
        workshop = replace(self)
        workshop.prepared = seal_search(facts(search_id), b"another", self.probes.public_key)
        return workshop

    @property
    def request_sha256(self) -> bytes:
        """What the decision is bound to."""
        one = self.prepared
        bound = bind(one.facts, OFFICER, one.sealed_probe, one.answer_key.public_key, one.salt)
        return request_digest(bound)

    def decide(
        self,
        decision: Decision = PERMITTED,
        changed: Callable[[Entry], None] = lambda _: None,
    ) -> Search:
        """The search once it was decided."""
        entry = Entry(schema_epoch=1, search_id=self.prepared.search_id)
        entry.search_decided.request_sha256 = self.request_sha256
        entry.search_decided.decision.CopyFrom(decision)
        entry.search_decided.summary.CopyFrom(self.summary)
        entry.recorded_at.FromSeconds(DECIDED_AT)
        permitted = decision.outcome == DecisionOutcome.DECISION_OUTCOME_PERMITTED
        if permitted:
            entry.search_decided.deadline.FromSeconds(DECIDED_AT + 60)
        changed(entry)
        decided = entry.search_decided
        search = Search(
            search_id=self.prepared.search_id,
            state=SearchState.SEARCH_STATE_PENDING
            if permitted
            else SearchState.SEARCH_STATE_REFUSED,
            summary=decided.summary,
            decision=decision,
            decision_receipt=self.log.receipt(self.log.append(entry)),
            decide_time=entry.recorded_at,
        )
        if permitted:
            search.deadline.CopyFrom(decided.deadline)
        return search

    @property
    def summary(self) -> SearchSummary:
        """What the ledger says the search is about."""
        stated = self.prepared.facts
        return SearchSummary(
            origin_agency=stated.origin_agency,
            beneficiary_agency=stated.beneficiary_agency,
            operator_agency="CA0190000",
            system=stated.system,
            gallery=stated.gallery,
            purpose=stated.purpose,
            suspicion=stated.suspicion,
            offence=stated.offence,
            provenance=stated.provenance,
            capture_mode=stated.capture_mode,
            candidates_max=20,
        )

    def check(
        self,
        decision: Decision = PERMITTED,
        changed: Callable[[Entry], None] = lambda _: None,
    ) -> CheckSearchResponse:
        """What a dry run gives. Its entry does not name the search."""
        entry = Entry(schema_epoch=1)
        entry.search_checked.decision.CopyFrom(decision)
        entry.search_checked.summary.CopyFrom(self.summary)
        changed(entry)
        receipt = self.log.receipt(self.log.append(entry))
        return CheckSearchResponse(decision=decision, receipt=receipt)

    def candidates(self) -> CandidateList:
        """Three candidates, one above the threshold."""
        return CandidateList(
            search_id=self.prepared.search_id,
            gallery=GALLERY,
            candidates=[
                Candidate(rank=rank, candidate_id=f"c{rank}", above_threshold=rank == 1)
                for rank in (1, 2, 3)
            ],
        )

    def answer(
        self,
        candidates: CandidateList | None = None,
        *,
        sealed_to: bytes = b"",
        info: bytes = b"",
        changed: Callable[[SearchAnswer], None] = lambda _: None,
    ) -> SearchAnswer:
        """What the connector says."""
        answer = SearchAnswer(
            search_id=self.prepared.search_id,
            order_sha256=ORDER_SHA256,
            request_sha256=self.request_sha256,
            system=SYSTEM,
            gallery=GALLERY,
        )
        answer.found.returned, answer.found.above_threshold = 3, 1
        answer.found.gallery_size, answer.found.algorithm = 80, "a matcher"
        sealed = seal(
            sealed_to or self.prepared.answer_key.public_key,
            (candidates or self.candidates()).SerializeToString(),
            info or candidates_info(self.prepared.search_id, ORDER_SHA256),
        )
        answer.found.sealed_candidates.CopyFrom(sealed)
        changed(answer)
        return answer

    def sign(self, answer: SearchAnswer, key: SigningKey | None = None) -> SignedAnswer:
        """The answer with the connector's signature, or another's."""
        key = key or self.connector
        data = answer.SerializeToString(deterministic=True)
        return SignedAnswer(
            answer=data, key_id=key.key_id, signature=key.sign(ANSWER_CONTEXT, data)
        )

    def end(
        self,
        search: Search,
        signed: SignedAnswer,
        changed: Callable[[Entry], None] = lambda _: None,
    ) -> Search:
        """The search once its answer was recorded and released."""
        said = SearchAnswer.FromString(signed.answer)
        entry = Entry(schema_epoch=1, search_id=search.search_id)
        ended: SearchFailed | SearchAnswered
        if said.HasField("failure"):
            entry.search_failed.reason = said.failure.reason
            entry.search_failed.check = said.failure.check
            ended = entry.search_failed
        else:
            entry.search_answered.candidates_returned = said.found.returned
            entry.search_answered.candidates_above_threshold = said.found.above_threshold
            entry.search_answered.gallery_size = said.found.gallery_size
            entry.search_answered.algorithm = said.found.algorithm
            ended = entry.search_answered
        ended.decided_index = search.decision_receipt.index
        ended.answer_sha256 = sha256(signed.answer).digest()
        changed(entry)
        search.answer.CopyFrom(signed)
        return self.close(search, entry)

    def close(self, search: Search, end: Entry) -> Search:
        """The search once this end of it was recorded."""
        search.end_receipt.CopyFrom(self.log.receipt(self.log.append(end)))
        search.state = END_STATES[str(end.WhichOneof("event"))]
        search.failure_reason = end.search_failed.reason
        return search
