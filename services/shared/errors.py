"""Expected failures that a caller can act upon, and their form on the wire.

Every error is a gRPC status (google.rpc.Status) with an `ErrorInfo` whose reason is stable: clients
branch on the class or the reason, never on the message. The message is for a person; it never holds
a face, a name or a case number. Anything that is not a `ServiceError` is a bug and reaches the
caller as INTERNAL without detail.

Reasons are append-only: a changed reason is a changed API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

DOMAIN = "countersign"
MESSAGE_BYTES_MAX = 800
VIOLATIONS_BYTES_MAX = 3_000
"""gRPC carries a status in trailers of 8 kB, twice: its message by itself, of which each byte that is not
plain takes three, and all of it in base64. What is larger reaches the caller as another error."""


def _number(status: grpc.StatusCode) -> int:
    code = status.value[0]
    assert isinstance(code, int)
    return code


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that breaks a rule."""

    field: str
    description: str


class ServiceError(Exception):
    """An expected failure: its class fixes the status, its reason is stable."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    _by_code: ClassVar[dict[int, type["ServiceError"]]] = {}

    def __init_subclass__(cls, *, status: grpc.StatusCode) -> None:
        """Binds the class to its status; one class for each status."""
        cls.status = status
        ServiceError._by_code[_number(status)] = cls

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"


class InvalidRequest(ServiceError, status=grpc.StatusCode.INVALID_ARGUMENT):
    """The request breaks a rule of its contract; sending it again will not help."""


class NotAuthentic(ServiceError, status=grpc.StatusCode.UNAUTHENTICATED):
    """The caller or the officer did not prove who they are."""


class NotAllowed(ServiceError, status=grpc.StatusCode.PERMISSION_DENIED):
    """The caller is known and may not do this."""


class NotFound(ServiceError, status=grpc.StatusCode.NOT_FOUND):
    """There is no such thing, or the caller may not know of it."""


class Conflict(ServiceError, status=grpc.StatusCode.ALREADY_EXISTS):
    """The identifier is taken by something else."""


class NotReady(ServiceError, status=grpc.StatusCode.FAILED_PRECONDITION):
    """The state does not allow this."""


class Overloaded(ServiceError, status=grpc.StatusCode.RESOURCE_EXHAUSTED):
    """A bound was reached; try again after the time given."""


class Unavailable(ServiceError, status=grpc.StatusCode.UNAVAILABLE):
    """A part that must be asked did not answer; nothing was done that a retry would do twice."""


class TooLate(ServiceError, status=grpc.StatusCode.DEADLINE_EXCEEDED):
    """The caller's deadline passed."""


class Withdrawn(ServiceError, status=grpc.StatusCode.CANCELLED):
    """The caller gave up."""


class Unimplemented(ServiceError, status=grpc.StatusCode.UNIMPLEMENTED):
    """This server does not do that."""


class Broken(ServiceError, status=grpc.StatusCode.INTERNAL):
    """The other side had a bug; it has the detail in its log."""


def to_status(error: ServiceError) -> status_pb2.Status:
    """The error as google.rpc.Status with its details."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={_text(key): _text(value) for key, value in sorted(error.metadata.items())},
    )
    details: list[Any] = [info]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=_number(error.status), message=_cut(_text(error.message)))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    """As many as fit, the first of them always, and how many more there are."""
    bad = error_details_pb2.BadRequest()
    for number, violation in enumerate(violations):
        if number and bad.ByteSize() > VIOLATIONS_BYTES_MAX:
            more = f"{len(violations) - number} more, which do not fit here"
            bad.field_violations.add(field=_text(violation.field), description=more)
            break
        description = _cut(_text(violation.description))
        bad.field_violations.add(field=_text(violation.field), description=description)
    return bad


def _cut(text: str) -> str:
    """As much as fits the bound on a message, as gRPC writes it."""
    taken = 0
    for at, character in enumerate(text):
        is_plain = " " <= character <= "~" and character != "%"
        taken += 1 if is_plain else 3 * len(character.encode())
        if taken > MESSAGE_BYTES_MAX:
            return f"{text[:at]}…"
    return text


def _text(text: str) -> str:
    """What can be sent: a lone surrogate, as JSON can hold, would make the error itself fail."""
    return text.encode("utf-8", "replace").decode()


def from_status(status: status_pb2.Status) -> ServiceError:
    """The error that the other side raised; unknown codes and garbled details become `Broken`."""
    try:
        return _from_status(status)
    except (DecodeError, ValueError):
        return Broken("STATUS_UNREADABLE", "the other side failed, and its account is not readable")


def _from_status(status: status_pb2.Status) -> ServiceError:
    reason = code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "UNKNOWN"
    metadata: dict[str, str] = {}
    violations: list[FieldViolation] = []
    retry_after_s: float | None = None
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    kind = ServiceError._by_code.get(status.code, Broken)
    return kind(
        reason,
        status.message,
        metadata=metadata,
        violations=violations,
        retry_after_s=retry_after_s,
    )
