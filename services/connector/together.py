"""One signature over answers that are committed together, besides each one's own."""

from collections.abc import Sequence
from dataclasses import replace

from connector.runs import Run
from countersign.connector.v1.connector_pb2 import SignedAnswer
from shared.signing import SigningKey
from shared.together import ANSWERS_CONTEXT, TOGETHER_MAX, sign_together


def signed_together(key: SigningKey, runs: Sequence[Run]) -> Sequence[Run]:
    """The same runs; where there are several, each answer with a signature over as many as one may be over.

    It spares the broker a verification for each answer, and the requester one for each of its own.
    """
    signed: list[Run] = []
    for start in range(0, len(runs), TOGETHER_MAX):
        some = runs[start : start + TOGETHER_MAX]
        if len(some) < 2:
            signed += some
            break
        together = sign_together(key, ANSWERS_CONTEXT, [run.answer_sha256 for run in some])
        # What follows a message's other fields belongs to it: protobuf reads fields wherever they stand.
        field = SignedAnswer(together=together).SerializeToString()
        signed += [replace(run, signed_answer=run.signed_answer + field) for run in some]
    return signed
