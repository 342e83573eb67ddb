"""Looks at a configuration as its process would at its start, and starts nothing.

Every path in it is looked at: what the process reads must be there and readable, and for what it keeps
there must be a folder to write to. What the process then does with the content, each service says itself
(`Checks.attempts`). Nothing is changed, and nobody is called.
"""

import os
import ssl
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shared.clock import Clock
from shared.errors import NotAuthentic, ServiceError
from shared.expiry import certificates_in
from shared.identity import SpiffeId
from shared.registry import RegistryError
from shared.settings import Kept, ProcessSettings, TlsFiles
from shared.settings_problems import FileRefused, Keys, Problem, SettingsError, dotted
from shared.signing import BadKey
from tlog.errors import TlogError

EXPECTED: Final = (SettingsError, RegistryError, BadKey, TlogError, OSError)
"""What a start fails with when a file is not what it should be."""

CORRECT: Final = "correct it, or name another"


@dataclass(frozen=True)
class Attempt:
    """Something that the process does at its start with what the configuration names."""

    key: str
    do: Callable[[], object]
    """Fails as the start would."""
    needs: tuple[str, ...] = ()
    """Keys without which it means nothing: when one of them is at fault already, it is left out."""


@dataclass(frozen=True)
class Checks:
    """What a service looks at besides the paths."""

    attempts: tuple[Attempt, ...] = ()
    identity: SpiffeId | None = None
    """Who the process must be by the certificate that it shows to the bus."""


@dataclass(frozen=True)
class Named:
    """A path in a configuration."""

    keys: Keys
    path: Path
    kept: bool

    @property
    def key(self) -> str:
        """Dotted."""
        return dotted(self.keys)


@dataclass(frozen=True)
class Looked:
    """What was looked at, and what is wrong."""

    names: tuple[Named, ...]
    problems: tuple[Problem, ...]


Settings = typing.TypeVar("Settings", bound=ProcessSettings)


def look(
    settings_class: type[Settings], file: Path, checks: Callable[[Settings], Checks], clock: Clock
) -> Looked:
    """All that is wrong with a file, as far as can be seen from here."""
    try:
        settings = settings_class.load(file)
    except FileRefused as refused:
        return Looked((), refused.problems)
    names = tuple(named_in(settings))
    problems = [problem for one in names if (problem := _unusable(one)) is not None]
    own = checks(settings)
    certificates = [
        Attempt(f"{role}.tls".lstrip("."), partial(_usable_tls, tls, clock))
        for role, tls in certificates_in(settings).items()
    ]
    if own.identity is not None:
        certificates.append(_shown_as(settings, own.identity))
    for attempt in (*certificates, *own.attempts):
        if not _is_at_fault((attempt.key, *attempt.needs), problems):
            problems += _tried(attempt)
    return Looked(names, tuple(problems))


def named_in(model: BaseModel, inside: Keys = ()) -> Iterator[Named]:
    """Every path in a configuration."""
    for name, field in type(model).model_fields.items():
        yield from _paths(getattr(model, name), (*inside, name), kept=is_kept(field))


def is_kept(field: FieldInfo) -> bool:
    """Whether what this field names is the process's own to make."""
    return Kept() in (*field.metadata, *_metadata(field.annotation))


def _paths(value: object, keys: Keys, *, kept: bool) -> Iterator[Named]:
    if isinstance(value, Path):
        yield Named(keys, value, kept)
    elif isinstance(value, BaseModel):
        yield from named_in(value, keys)
    elif isinstance(value, Mapping):
        for label, one in value.items():
            yield from _paths(one, (*keys, label), kept=kept)
    elif isinstance(value, tuple):
        for number, one in enumerate(value):
            yield from _paths(one, (*keys, number), kept=kept)


def _metadata(annotation: Any) -> Iterator[object]:
    yield from getattr(annotation, "__metadata__", ())
    for one in typing.get_args(annotation):
        yield from _metadata(one)


def _unusable(one: Named) -> Problem | None:
    path = one.path
    try:
        if one.kept and not path.exists():
            folder = next(parent for parent in path.parents if parent.exists())
            if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
                return None
            do = f"give this user a folder there that it may write to (`{path.parent}`)"
            return Problem(one.key, f"{path}: nothing can be made in {folder}", do)
        path.stat()
    except OSError as error:
        do = "put it there, or name another path"
        return Problem(one.key, f"{path}: {error.strerror or error}", do)
    mode = os.R_OK | (os.W_OK if one.kept else 0) | (os.X_OK if path.is_dir() else 0)
    if not os.access(path, mode):
        do = "let the user that the process runs as read it"
        return Problem(one.key, f"{path}: Permission denied", do + (" and write it" * one.kept))
    return None


def _is_at_fault(keys: tuple[str, ...], problems: list[Problem]) -> bool:
    return any(
        problem.key == key or problem.key.startswith(f"{key}.")
        for key in keys
        for problem in problems
    )


def _tried(attempt: Attempt) -> Iterator[Problem]:
    try:
        attempt.do()
    except ServiceError as error:
        # What is not ready says itself what to do.
        wrong, _, do = error.message.partition("; ")
        yield Problem(attempt.key, wrong, do or CORRECT)
    except EXPECTED as error:
        yield Problem(attempt.key, str(error).removeprefix(f"{attempt.key}: "), CORRECT)


def _usable_tls(tls: TlsFiles, clock: Clock) -> None:
    """As a start would load them; raises SettingsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(tls.authority)
    except ssl.SSLError as error:
        raise SettingsError(f"{tls.authority} holds no certificates: {error}") from error
    try:
        context.load_cert_chain(tls.certificate, tls.key, _no_password)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"{tls.certificate} with the key {tls.key} cannot be used: {error}"
        ) from error
    chain = x509.load_pem_x509_certificates(tls.certificate.read_bytes())
    now = clock.now()
    for one in chain:
        if now < one.not_valid_before_utc:
            raise SettingsError(f"{tls.certificate} counts only from {one.not_valid_before_utc} on")
        if now >= one.not_valid_after_utc:
            raise SettingsError(f"{tls.certificate} lapsed on {one.not_valid_after_utc}")


def _no_password() -> str:
    """A key with a password would make the start wait at a terminal."""
    raise ValueError("the key must have no password")


def _shown_as(settings: ProcessSettings, identity: SpiffeId) -> Attempt:
    """The bus gives its permissions by the name in the certificate."""
    tls = certificates_in(settings)["bus"]

    def do() -> None:
        said = identity_in(tls.certificate)
        if said != identity:
            raise SettingsError(
                f"{tls.certificate} is of {said or 'nobody with a SPIFFE ID'}, and the bus knows this "
                f"process by {identity}"
            )

    return Attempt("bus.tls.certificate", do, ("bus.tls",))


def identity_in(certificate: Path) -> SpiffeId | None:
    """Whose certificate this is; None when it names nobody of ours."""
    leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId.parse(uri)
    except (x509.ExtensionNotFound, ValueError, NotAuthentic):
        return None
