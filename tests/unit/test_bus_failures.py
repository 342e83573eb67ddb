"""Whoever waits for an answer is told why there is none, in no library's words."""

import nats.errors
import nats.js.errors
import pytest

from shared.bus_failures import in_words
from shared.deliveries import as_unavailable
from shared.errors import Unavailable


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (nats.errors.NoRespondersError(), "nobody serves it now"),
        (nats.errors.TimeoutError(), "it did not answer in time"),
        (TimeoutError(), "it did not answer in time"),
        (ConnectionResetError(), "there is no connection to the bus"),
        (nats.errors.OutboundBufferLimitError(), "there is no connection to the bus"),
        (nats.errors.MaxPayloadError(), "it is larger than the bus takes"),
        (nats.js.errors.NotFoundError(), "the bus has no such stream or consumer"),
        (nats.js.errors.ServerError(), "the bus refused it"),
        (nats.errors.Error("nats: what was sent"), "the bus failed"),
    ],
)
def test_it_is_said_in_plain_words(error: Exception, said: str) -> None:
    assert in_words(error) == said
    with pytest.raises(Unavailable) as refused, as_unavailable("stream ANSWERS"):
        raise error
    assert refused.value.message == f"stream ANSWERS: {said}"
