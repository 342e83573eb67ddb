"""Whatever is sent over AuthZEN, it is a question that somebody could mean, or an error of its door."""

import asyncio
import contextlib
import json
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from policy.authzen import reading
from policy.authzen.front import EVALUATION, EVALUATIONS, SEARCHES, Front
from policy.authzen.questions import Domain
from shared.errors import InvalidRequest, NotAllowed
from shared.identity import SpiffeId
from support.authzen import certification
from support.authzen_searches import asks, context, search_domain
from support.directives import LAPD
from support.doors import TRUST_DOMAIN
from support.examples import examples

LAPD_SYSTEM: Final = SpiffeId(TRUST_DOMAIN, "agency", LAPD)
NAMES: Final = sorted(
    {
        *("subject", "action", "resource", "context", "evaluations", "options", "page", "limit"),
        *("token", "evaluations_semantic", "type", "id", "name", "properties", "agency", "system"),
        *("instrument", "emergency", "claimed", "began", "expires", "usesLeft", "time", "kind"),
        *context(),
    }
)
WORDS: Final = ["officer", "gallery", "submitSearch", LAPD, "lacris", "never", "none", "\x00", "é"]
texts = st.sampled_from(WORDS) | st.text(max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
DOMAINS: Final[tuple[Domain, ...]] = (search_domain(), certification())


def changed(document: Any, path: list[int], value: Any) -> Any:
    """The document with something in it replaced, or added."""
    if not path or not isinstance(document, dict):
        return value
    names = [*sorted(document), "one more"]
    name = names[path[0] % len(names)]
    return {**document, name: changed(document.get(name), path[1:], value)}


near = st.builds(
    changed,
    st.sampled_from([asks(), asks(evaluations=[asks(), {}]), asks(page={"limit": 1})]),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    values,
)


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_bytes_are_an_object_or_unreadable(body: bytes) -> None:
    # Any other error fails the test.
    with contextlib.suppress(InvalidRequest):
        assert isinstance(reading.parse(body), dict)


@examples(2)
@given(near | values, st.sampled_from([EVALUATION, EVALUATIONS, *SEARCHES]))
def test_what_is_near_a_question_is_answered_or_refused(document: Any, path: str) -> None:
    for domain in DOMAINS:
        front = Front(domain)
        with contextlib.suppress(InvalidRequest, NotAllowed):
            answer = asyncio.run(front.answer(path, LAPD_SYSTEM, json.dumps(document).encode()))
            assert {"decision", "evaluations", "results"} & answer.keys()
            json.dumps(answer, allow_nan=False).encode()
