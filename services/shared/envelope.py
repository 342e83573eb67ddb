"""What goes around a request and its reply on the bus: the deadline, and the error."""

import time
from collections.abc import Mapping
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from shared.errors import InvalidRequest, ServiceError, TooLate, to_status

Request = TypeVar("Request", bound=Message)

DEADLINE: Final = "Countersign-Deadline"
"""Milliseconds since 1970, after which nobody waits for the reply."""
ERROR: Final = "Nats-Service-Error-Code"


def asked(subject: str, data: bytes, headers: Mapping[str, str], request: type[Request]) -> Request:
    """The request, if it can be read and somebody still waits for it. Raises InvalidRequest, TooLate."""
    try:
        deadline_ms = int(headers.get(DEADLINE, ""))
        asked = request.FromString(data)
    except (DecodeError, ValueError) as error:
        raise InvalidRequest(
            "MESSAGE_INVALID", f"a request on {subject} cannot be read ({type(error).__name__})"
        ) from error
    if deadline_ms < time.time() * 1000:
        raise TooLate("DEADLINE_PASSED", f"a request on {subject} came too late")
    return asked


def error_reply(error: ServiceError) -> tuple[bytes, dict[str, str]]:
    """The error as content and headers of a reply."""
    status = to_status(error)
    return status.SerializeToString(), {ERROR: str(status.code)}
