"""Orders as a broker makes them, and as one who would deceive a connector would.

`OrderWorkshop` holds every key of a small world. `signed` makes a sound order; each part of it can be
changed on its way, and what comes after is then made from the changed part, as a forger would.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.proof import Expectations, OwnDirectives
from countersign.connector.v1.connector_pb2 import (
    CandidateList,
    SearchAnswer,
    SearchOrder,
    SignedAnswer,
    SignedOrder,
)
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.type.v1.decision_pb2 import (
    Decision,
    DecisionOutcome,
    Receipt,
    Seat,
    Verdict,
    VerdictOutcome,
)
from countersign.type.v1.search_pb2 import (
    BoundRequest,
    CaptureMode,
    Offence,
    OffenceSeverity,
    ProbeProvenance,
    Purpose,
    SealedPayload,
    SearchFacts,
    SuspicionLevel,
)
from shared.binding import bind, request_digest
from shared.sealing import PrivateKey, candidates_info, probe_info, seal
from shared.signing import ANSWER_CONTEXT, ORDER_CONTEXT, SigningKey
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.cosignature import Cosigner
from tlog.merkle import leaf_hash, node_hash
from tlog.note import Signer
from tlog.policy import Policy
from tlog.proof import write_proof

NOW: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SEARCH_ID: Final = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e10"
SYSTEM: Final = "lacris"
GALLERY: Final = "lacris-booking"
OPERATOR: Final = "CA0190000"
OFFICER: Final = "lapd-40123"
LOG: Final = "countersign.test/ledger"


def permits(_request: BoundRequest, _now: datetime) -> Sequence[Verdict]:
    """The directives of an agency that permits."""
    return [verdict(VerdictOutcome.VERDICT_OUTCOME_PERMIT)]


def verdict(outcome: VerdictOutcome.ValueType) -> Verdict:
    """What the operator's directives say."""
    return Verdict(seat=Seat.SEAT_OPERATOR, party=OPERATOR, outcome=outcome)


def facts(search_id: str = SEARCH_ID) -> SearchFacts:
    """LAPD's own case on LACRIS, as its directives and the Sheriff's permit it."""
    return SearchFacts(
        search_id=search_id,
        origin_agency="CA0194200",
        beneficiary_agency="CA0194200",
        system=SYSTEM,
        gallery=GALLERY,
        purpose=Purpose.PURPOSE_CRIMINAL_INVESTIGATION,
        suspicion=SuspicionLevel.SUSPICION_LEVEL_REASONABLE_SUSPICION,
        offence=Offence(
            nibrs_code="120",
            statute="Cal. Penal Code s. 211",
            severity=OffenceSeverity.OFFENCE_SEVERITY_VIOLENT_FELONY,
        ),
        provenance=ProbeProvenance.PROBE_PROVENANCE_CRIME_SCENE_RECORDING,
        capture_mode=CaptureMode.CAPTURE_MODE_STORED_STILL,
        case_number="26-0000001",
        narrative="SECRET-NARRATIVE",
    )


def log_signer() -> Signer:
    """A log's key."""
    return Signer(LOG, Ed25519PrivateKey.generate())


@dataclass
class OrderWorkshop:
    """All keys of a small world, and the way from facts to a signed order."""

    broker: SigningKey = field(default_factory=SigningKey.generate)
    log: Signer = field(default_factory=log_signer)
    connector_probes: PrivateKey = field(default_factory=PrivateKey.generate)
    connector_answers: SigningKey = field(default_factory=SigningKey.generate)
    requester: PrivateKey = field(default_factory=PrivateKey.generate)
    now: datetime = NOW
    cosigners: Sequence[Cosigner] = ()
    """Who cosigns the log."""
    witnesses: Policy | None = None
    """What the connector demands of them."""
    sealed_probe: SealedPayload = field(default_factory=SealedPayload)
    """The probe of the newest order, which `sign` puts beside it."""

    def expectations(self, own_directives: OwnDirectives = permits) -> Expectations:
        """What the connector of this world holds itself."""
        return Expectations(
            system=SYSTEM,
            gallery=GALLERY,
            broker_keys={self.broker.key_id: self.broker.verify_key},
            logs=(self.log.verifier,),
            own_directives=own_directives,
            witnesses=self.witnesses,
        )

    def order(
        self,
        *,
        search_id: str = SEARCH_ID,
        probe: bytes = b"a probe",
        facts_changed: Callable[[SearchFacts], None] = lambda _: None,
        request_changed: Callable[[BoundRequest], None] = lambda _: None,
        entry_changed: Callable[[Entry], None] = lambda _: None,
        log: Signer | None = None,
    ) -> SearchOrder:
        """An order whose later parts are made from the changed earlier ones."""
        stated = facts(search_id)
        facts_changed(stated)
        sealed = seal(self.connector_probes.public_key, probe, probe_info(search_id, SYSTEM))
        bound = BoundRequest.FromString(
            bind(stated, OFFICER, sealed, self.requester.public_key, b"s" * 32)
        )
        request_changed(bound)
        request = bound.SerializeToString(deterministic=True)
        self.sealed_probe = sealed
        order = SearchOrder(search_id=search_id, system=SYSTEM, bound_request=request)
        order.issued_at.FromDatetime(self.now)
        order.deadline.FromDatetime(self.now + timedelta(minutes=15))
        entry = self.entry(search_id, request_digest(request))
        entry_changed(entry)
        proved = receipt(entry.SerializeToString(), log or self.log, self.cosigners)
        order.decision_receipt.CopyFrom(proved)
        return order

    def entry(self, search_id: str, request_sha256: bytes) -> Entry:
        """The permitting decision, as the ledger records it."""
        entry = Entry(schema_epoch=1, search_id=search_id)
        entry.recorded_at.FromDatetime(self.now)
        decided = entry.search_decided
        decided.request_sha256 = request_sha256
        decided.deadline.FromDatetime(self.now + timedelta(minutes=15))
        decided.decision.CopyFrom(
            Decision(
                outcome=DecisionOutcome.DECISION_OUTCOME_PERMITTED,
                verdicts=[verdict(VerdictOutcome.VERDICT_OUTCOME_PERMIT)],
            )
        )
        return entry

    def sign(self, order: SearchOrder, key: SigningKey | None = None) -> SignedOrder:
        """The order with the broker's signature, or another's."""
        key = key or self.broker
        data = order.SerializeToString(deterministic=True)
        return SignedOrder(
            order=data,
            key_id=key.key_id,
            signature=key.sign(ORDER_CONTEXT, data),
            sealed_probe=self.sealed_probe,
        )

    def opened(self, signed: SignedAnswer, signed_order: SignedOrder) -> CandidateList:
        """The candidate list, as the requester reads it after checking the signature."""
        answer = self.checked(signed)
        info = candidates_info(answer.search_id, hashlib.sha256(signed_order.order).digest())
        return CandidateList.FromString(self.requester.open(answer.found.sealed_candidates, info))

    def checked(self, signed: SignedAnswer) -> SearchAnswer:
        """The answer, once the connector's signature on it verifies."""
        key = self.connector_answers.verify_key
        assert signed.key_id == key.key_id
        key.verify(ANSWER_CONTEXT, signed.answer, signed.signature)
        return SearchAnswer.FromString(signed.answer)


def receipt(leaf: bytes, log: Signer, cosigners: Sequence[Cosigner] = ()) -> Receipt:
    """Proof that the leaf is the second of two entries of the log."""
    first = leaf_hash(b"an earlier entry")
    checkpoint = Checkpoint(log.verifier.name, 2, node_hash(first, leaf_hash(leaf)))
    note = sign_checkpoint(checkpoint, log)
    note += "".join(one.cosign(checkpoint, int(NOW.timestamp())) for one in cosigners)
    return Receipt(index=1, leaf=leaf, tlog_proof=write_proof(1, [first], note))
