"""What is said of a bus that did not do what it was asked, to whoever waits: no library's words."""

from typing import Final

import nats.errors
import nats.js.errors

_NO_CONNECTION: Final = "there is no connection to the bus"
_WORDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (nats.errors.NoRespondersError, "nobody serves it now"),
    (nats.errors.MaxPayloadError, "it is larger than the bus takes"),
    (nats.errors.OutboundBufferLimitError, _NO_CONNECTION),
    (nats.errors.ConnectionClosedError, _NO_CONNECTION),
    (nats.errors.ConnectionDrainingError, "the process is leaving the bus"),
    (nats.js.errors.NotFoundError, "the bus has no such stream or consumer"),
    (nats.js.errors.ServiceUnavailableError, "the bus cannot do it now"),
    (nats.js.errors.Error, "the bus refused it"),
    (TimeoutError, "it did not answer in time"),
    (OSError, _NO_CONNECTION),
)
"""The first that fits."""


def in_words(error: Exception) -> str:
    """Why, without the library's words: they may quote what was sent."""
    return next((words for kind, words in _WORDS if isinstance(error, kind)), "the bus failed")
