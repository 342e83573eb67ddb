"""What `countersign-witness config check` looks at: what a start does with the files."""

import ssl
from functools import partial

from shared.config_check import Attempt, Checks
from shared.errors import NotReady
from shared.settings import SettingsError
from witness.config import WitnessSettings
from witness.keys import load_cosigner


def checks(settings: WitnessSettings) -> Checks:
    """Of a witness."""
    keys = [
        Attempt(f"keys.{number}", partial(load_cosigner, path))
        for number, path in enumerate(settings.keys)
    ]
    return Checks(
        (
            *keys,
            Attempt("database", lambda: _is_there(settings)),
            Attempt("listen", lambda: _usable(settings)),
        )
    )


def _is_there(settings: WitnessSettings) -> None:
    if not settings.create_if_missing and not settings.database.exists():
        raise NotReady(
            "WITNESS_MISSING",
            f"{settings.database} is not there; for a new witness make it with countersign-witness begin",
        )


def _usable(settings: WitnessSettings) -> None:
    certificate = settings.listen.certificate
    if certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, settings.listen.key)
    except ssl.SSLError as error:
        raise SettingsError(
            f"{certificate} with the key {settings.listen.key} cannot be used: {error}"
        ) from error
