"""From a verified order to a signed answer: open the probe, have it compared, seal what was found.

Every order that is answered at all gets a signed answer, for failures too. Nothing about the probe
or the candidates is logged, and candidates leave only sealed to the requester.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import NamedTuple

import stamina
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from connector.proof import OrderRefused, SignedBytes, VerifiedOrder
from connector.system import (
    CANDIDATES_DEFAULT,
    CANDIDATES_MAX,
    FaceSystem,
    Findings,
    ProbeRefused,
    Resemblance,
    SystemFailed,
)
from countersign.connector.v1.connector_pb2 import (
    CandidateList,
    FailureReason,
    ScoreScale,
    SearchAnswer,
    SignedAnswer,
)
from shared.clock import Clock, stamp
from shared.sealing import PrivateKey, Unopenable, candidates_info, probe_info, seal
from shared.signing import ANSWER_CONTEXT, SigningKey

NOTICE = (
    "Investigative lead only. These records resemble the probe; none of them has been identified "
    "as the person in it. People who are not that person can score high. A trained examiner must compare "
    "every candidate, and no arrest, charge or warrant may rest on this list alone."
)

CANDIDATE_ID_BYTES = 16
"""Length of a candidate's identifier: too long to guess or to meet twice."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How often a failing system is asked again."""

    attempts: int
    wait_initial_s: float
    wait_max_s: float


@dataclass(frozen=True)
class Scale:
    """How this system's scores are to be read."""

    minimum: float
    maximum: float
    threshold: float
    false_match_rate: float | None


@dataclass(frozen=True)
class Keys:
    """The connector's own secrets."""

    answers: SigningKey
    probes: PrivateKey
    candidate_ids: bytes
    """Turns the holder's record names into identifiers that mean nothing to others."""


class AnsweredOrder(NamedTuple):
    """What an answer is to: enough of an order to answer it, verified or not."""

    search_id: str
    order_sha256: bytes
    request_sha256: bytes


class Answered(NamedTuple):
    """An answer as it is published, and what of it is needed again: nothing is read back from its bytes."""

    answer: SearchAnswer
    sha256: bytes
    """Of the bytes of the answer that are signed."""
    data: bytes
    """A serialised SignedAnswer."""

    @classmethod
    def read(cls, data: bytes) -> "Answered":
        """One that was made before."""
        answer = SignedAnswer.FromString(data).answer
        return cls(SearchAnswer.FromString(answer), sha256(answer).digest(), data)


class Answerer:
    """Makes the answers of one system."""

    def __init__(
        self,
        system: str,
        gallery: str,
        keys: Keys,
        behind: FaceSystem,
        scale: Scale,
        retries: Retries,
        clock: Clock,
    ) -> None:
        self._system = system
        self._keys = keys
        self._behind = behind
        self._scale = scale
        self._retries = retries
        self._clock = clock
        self._identify = CandidateIds(keys.candidate_ids, gallery).of
        score_scale = ScoreScale(
            algorithm=behind.algorithm,
            minimum=scale.minimum,
            maximum=scale.maximum,
            threshold=scale.threshold,
            false_match_rate=scale.false_match_rate,
        )
        self._every_list = CandidateList(gallery=gallery, score_scale=score_scale, notice=NOTICE)
        self._every_answer = SearchAnswer(system=system, gallery=gallery)

    async def answer(self, order: VerifiedOrder) -> Answered:
        """Run the order and answer it."""
        about = AnsweredOrder(order.search_id, order.order_sha256, order.request_sha256)
        try:
            probe = self._keys.probes.open(
                order.sealed_probe, probe_info(order.search_id, self._system)
            )
        except Unopenable:
            return self._failed(about, FailureReason.FAILURE_REASON_PROBE_UNREADABLE)
        wanted = min(order.facts.candidates_max or CANDIDATES_DEFAULT, CANDIDATES_MAX)
        try:
            findings = await self._search(probe, wanted)
        except ProbeRefused as refused:
            return self._failed(about, FailureReason.Value(f"FAILURE_REASON_{refused.reason}"))
        except SystemFailed as error:
            log.error("system behind failed", extra={"fields": {"why": str(error)}})
            return self._failed(about, FailureReason.FAILURE_REASON_SYSTEM_ERROR)
        return self._found(order, about, findings, wanted)

    def refused(self, about: AnsweredOrder, refused: OrderRefused) -> Answered:
        """The answer to an order that may not be run."""
        return self._failed(about, refused.reason, refused.check)

    def set_aside(self, about: AnsweredOrder) -> Answered:
        """The answer to an order that was begun again and again and never came to another."""
        return self._failed(about, FailureReason.FAILURE_REASON_SYSTEM_ERROR, "SET_ASIDE")

    async def _search(self, probe: bytes, wanted: int) -> Findings:
        try:
            return await self._behind.search(probe, wanted)
        except SystemFailed as error:
            return await self._search_again(probe, wanted, error)

    async def _search_again(self, probe: bytes, wanted: int, failed: SystemFailed) -> Findings:
        """Retries after a failed attempt, which counts as the first of them."""
        first = True
        async for attempt in stamina.retry_context(
            on=SystemFailed,
            attempts=self._retries.attempts,
            timeout=None,
            wait_initial=self._retries.wait_initial_s,
            wait_max=self._retries.wait_max_s,
            wait_jitter=self._retries.wait_initial_s,
        ):
            with attempt:
                # Made before, because most searches need no retries and should not pay for them.
                if first:
                    first = False
                    raise failed
                return await self._behind.search(probe, wanted)
        raise AssertionError("the last attempt returns or raises")

    def _found(
        self, order: VerifiedOrder, about: AnsweredOrder, findings: Findings, wanted: int
    ) -> Answered:
        now = self._clock.now()
        # A system may return more than asked for, and in any order; the requester gets neither.
        ranked = sorted(findings.resemblances, key=attrgetter("score"), reverse=True)[:wanted]
        found = self._candidate_list(order.search_id, findings, ranked, wanted, now)
        sealed = seal(
            order.answer_public_key,
            found.SerializeToString(deterministic=True),
            candidates_info(order.search_id, order.order_sha256),
        )
        threshold = self._scale.threshold
        answer = self._answer_to(about)
        result = answer.found
        result.returned = len(ranked)
        result.above_threshold = sum([one.score >= threshold for one in ranked])
        result.gallery_size = findings.gallery_size
        result.algorithm = self._behind.algorithm
        result.sealed_candidates.CopyFrom(sealed)
        return self._sign(answer, now)

    def _candidate_list(
        self,
        search_id: str,
        findings: Findings,
        ranked: Sequence[Resemblance],
        wanted: int,
        searched_at: datetime,
    ) -> CandidateList:
        found = CandidateList()
        found.CopyFrom(self._every_list)
        found.search_id = search_id
        found.gallery_size = findings.gallery_size
        found.requested = wanted
        found.probe_sha256 = findings.probe_sha256
        found.clean_pixels_sha256 = findings.clean_pixels_sha256
        found.searched_at.CopyFrom(stamp(searched_at))
        face, box, quality = findings.face, found.probe_face, found.probe_quality
        box.x, box.y, box.width, box.height = face.x, face.y, face.width, face.height
        quality.detector_score = face.detector_score
        quality.inter_eye_distance_px = face.inter_eye_distance_px
        quality.sharpness = face.sharpness
        threshold = self._scale.threshold
        identifiers = self._identify([one.record for one in ranked])
        # Looking the field up costs as much as adding to it.
        add = found.candidates.add
        for rank, (resemblance, identifier) in enumerate(zip(ranked, identifiers, strict=True), 1):
            candidate, score = add(), resemblance.score
            candidate.rank = rank
            candidate.candidate_id = identifier
            candidate.similarity_score = score
            candidate.above_threshold = score >= threshold
            candidate.image_sha256 = resemblance.image_sha256
        return found

    def _failed(
        self, about: AnsweredOrder, reason: FailureReason.ValueType, check: str = ""
    ) -> Answered:
        answer = self._answer_to(about)
        answer.failure.reason = reason
        answer.failure.check = check
        return self._sign(answer, self._clock.now())

    def _answer_to(self, about: AnsweredOrder) -> SearchAnswer:
        # What is given to a message's constructor is serialised and read again; what is copied is not.
        answer = SearchAnswer()
        answer.CopyFrom(self._every_answer)
        answer.search_id, answer.order_sha256, answer.request_sha256 = about
        return answer

    def _sign(self, answer: SearchAnswer, answered_at: datetime) -> Answered:
        answer.answered_at.CopyFrom(stamp(answered_at))
        data = answer.SerializeToString(deterministic=True)
        signed = SignedAnswer(
            answer=data,
            key_id=self._keys.answers.key_id,
            signature=self._keys.answers.sign(ANSWER_CONTEXT, data),
        )
        return Answered(answer, sha256(data).digest(), signed.SerializeToString())


class CandidateIds:
    """The holder's identifiers of one gallery's records, which mean nothing without the holder's key.

    The HMAC-SHA-256 of gallery and record: what does not depend on the record is hashed once.
    """

    def __init__(self, key: bytes, gallery: str) -> None:
        begun = HMAC(key, SHA256())
        begun.update(gallery.encode() + b"\0")
        self._copy = begun.copy

    def of(self, records: Iterable[str]) -> list[str]:
        """The identifiers of records, in their order."""
        begun, identifiers = self._copy, []
        for record in records:
            mac = begun()
            mac.update(record.encode())
            identifiers.append(mac.finalize()[:CANDIDATE_ID_BYTES].hex())
        return identifiers


def candidate_id(key: bytes, gallery: str, record: str) -> str:
    """The identifier of one record of a gallery."""
    (identifier,) = CandidateIds(key, gallery).of([record])
    return identifier


def about_signed(signed: SignedBytes) -> AnsweredOrder:
    """What an answer to an order with a good signature is to."""
    return AnsweredOrder(signed.order.search_id, signed.order_sha256, signed.request_sha256)
