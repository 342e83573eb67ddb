"""The connector's own agency's directives, evaluated a second time before its system is touched.

The broker was told that this agency permits. The connector does not take anybody's word for that: it
holds its own copies of directives and registry, and asks them itself, under its own clock.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from connector.proof import OwnDirectives
from countersign.type.v1.decision_pb2 import Verdict
from countersign.type.v1.search_pb2 import BoundRequest
from directive import vocabulary_signature
from directive.book import BookError, load_book
from directive.entities import EntitiesError
from directive.evaluate import Evaluator
from directive.self_test import EngineUntrustworthy
from directive.signature import Signers
from directive.vocabulary import VocabularyError
from shared.registry import Registry
from shared.settings import SettingsError


def load_own_directives(
    folder: Path,
    registry: Registry,
    agency: str,
    signers: Signers | None = None,
    vocabulary_signers: tuple[str, ...] = (),
) -> OwnDirectives:
    """What judges a request by the agency's directives; raises SettingsError.

    The agency is asked for each seat that it holds in the search, and it holds one at least: it runs
    the system.
    """
    try:
        vocabulary = vocabulary_signature.load(folder, vocabulary_signers)
        evaluator = Evaluator(load_book(folder, vocabulary, registry, signers), registry)
    except (BookError, EntitiesError, EngineUntrustworthy, VocabularyError) as error:
        raise SettingsError(f"cannot use the directives in {folder}: {error}") from error

    def judge(request: BoundRequest, now: datetime) -> Sequence[Verdict]:
        question = evaluator.ask(request.facts, request.officer, now)
        return [seat.verdict for seat in evaluator.party_says(question, agency)]

    return judge
