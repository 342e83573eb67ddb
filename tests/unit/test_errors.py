"""Errors keep what callers act upon on their way over the wire."""

from urllib.parse import quote

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from shared.errors import (
    DOMAIN,
    Broken,
    Conflict,
    FieldViolation,
    InvalidRequest,
    NotAllowed,
    NotAuthentic,
    NotFound,
    NotReady,
    Overloaded,
    ServiceError,
    TooLate,
    Unavailable,
    Unimplemented,
    Withdrawn,
    from_status,
    to_status,
)
from shared.rpc import service_error

CODES = {
    InvalidRequest: code_pb2.INVALID_ARGUMENT,
    NotAuthentic: code_pb2.UNAUTHENTICATED,
    NotAllowed: code_pb2.PERMISSION_DENIED,
    NotFound: code_pb2.NOT_FOUND,
    Conflict: code_pb2.ALREADY_EXISTS,
    NotReady: code_pb2.FAILED_PRECONDITION,
    Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    Unavailable: code_pb2.UNAVAILABLE,
    TooLate: code_pb2.DEADLINE_EXCEEDED,
    Withdrawn: code_pb2.CANCELLED,
    Unimplemented: code_pb2.UNIMPLEMENTED,
    Broken: code_pb2.INTERNAL,
}


def test_every_class_is_listed_here_and_has_a_status_of_its_own() -> None:
    assert set(ServiceError.__subclasses__()) == set(CODES)
    assert len({kind.status for kind in CODES}) == len(CODES)


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_class_decides_the_status_and_comes_back(kind: type[ServiceError], code: int) -> None:
    error = kind("A_REASON", "for a person", metadata={"size": "5"}, retry_after_s=1.5)
    status = to_status(error)
    assert status.code == code
    assert kind.status.value[0] == code
    rebuilt = from_status(status)
    assert type(rebuilt) is kind
    assert (rebuilt.reason, rebuilt.message) == ("A_REASON", "for a person")
    assert (rebuilt.metadata, rebuilt.retry_after_s) == ({"size": "5"}, 1.5)


def test_details_are_those_of_google_rpc() -> None:
    violation = FieldViolation("facts.system", "does not match")
    status = to_status(InvalidRequest("INVALID_REQUEST", "1 field", violations=[violation]))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("INVALID_REQUEST", DOMAIN)
    assert [v.field for v in bad.field_violations] == ["facts.system"]


def test_text_that_is_no_unicode_does_not_make_the_error_itself_fail() -> None:
    odd = "\ud800"
    error = Conflict(
        "R", odd, metadata={"name": odd}, violations=[FieldViolation(odd, odd)], retry_after_s=0
    )
    assert from_status(to_status(error)).message == "?"


@pytest.mark.parametrize("code", [0, 2, 9999, -1])
def test_unknown_status_is_the_other_sides_fault(code: int) -> None:
    assert isinstance(from_status(status_pb2.Status(code=code, message="?")), Broken)


def test_status_without_details_has_the_codes_name_as_its_reason() -> None:
    assert from_status(status_pb2.Status(code=code_pb2.NOT_FOUND)).reason == "NOT_FOUND"


def test_garbled_details_are_the_other_sides_fault() -> None:
    garbled = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff" * 3)
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, details=[garbled])
    error = from_status(status)
    assert isinstance(error, Broken)
    assert error.reason == "STATUS_UNREADABLE"


def test_details_of_others_are_passed_over() -> None:
    other = any_pb2.Any(type_url="type.googleapis.com/vendor.Secret", value=b"\xff\xff")
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, details=[other])
    assert isinstance(from_status(status), NotFound)


def test_text_of_an_error_ends_with_its_reason() -> None:
    assert str(NotFound("ENTRY_UNKNOWN", "there is no entry 7")) == (
        "there is no entry 7 [ENTRY_UNKNOWN]"
    )
    assert NotFound.status is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("letter", ["m", "ü", "語", "%"])
def test_a_status_stays_below_what_trailers_carry(letter: str) -> None:
    """Twice: the message by itself, and all of it in base64."""
    violations = [FieldViolation(f"rules.cedar:{n}:1", letter * 500) for n in range(300)]
    status = to_status(InvalidRequest("A", letter * 5000, violations=violations))
    written = quote(status.message, safe=" ")
    assert 4 * len(status.SerializeToString()) // 3 + len(written) < 8000
    back = from_status(status)
    assert back.message.startswith(letter * 80)
    assert back.violations[0].field == "rules.cedar:0:1"
    assert back.violations[-1].description.endswith("more, which do not fit here")
    told = len(back.violations) - 1
    assert back.violations[-1].description.startswith(str(300 - told))


def test_call_that_a_stopping_server_dropped_is_to_be_made_again() -> None:
    none = grpc.aio.Metadata()
    dropped = grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, none, none, "CANCELLED")
    error = service_error(dropped)
    assert (type(error), error.reason) == (Unavailable, "UNREACHABLE")
    assert error.retry_after_s == 1
