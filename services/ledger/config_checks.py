"""What `countersign-ledger config check` looks at: what a start does with the files.

A key in a hardware module is looked for in the module. A database is not connected to: whether it is
there and has the right schema is for `countersign-ledger check` and `migrate` to say.
"""

import ssl
from pathlib import Path

from ledger.config import LedgerSettings
from ledger.feeding import load_policy, trusted
from ledger.from_settings import load_keys
from ledger.postgres_connection import connection_parameters, parameters_from
from shared.config_check import Attempt, Checks
from shared.errors import NotReady
from shared.identity import SpiffeId
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError
from shared.signing import VerifyKey


def checks(settings: LedgerSettings) -> Checks:
    """Of a ledger."""
    registry = settings.registry
    attempts = [
        Attempt("signing_keys", lambda: load_keys(settings)),
        Attempt("database", lambda: _reachable(settings)),
        Attempt("trust_roots", lambda: _connectors_keys(settings.trust_roots)),
        Attempt("witnessing", lambda: _witnesses(settings), ("signing_keys",)),
        Attempt("http.tls", lambda: _served(settings)),
    ]
    if registry is not None:
        attempts.append(Attempt("registry", lambda: Registry.load(registry)))
    return Checks(tuple(attempts), SpiffeId(settings.trust_domain, "service", "ledger"))


def _reachable(settings: LedgerSettings) -> None:
    if isinstance(settings.database, Path):
        if not settings.create_if_missing and not settings.database.exists():
            signed = settings.last_signed_file
            if signed is not None and signed.exists():
                do = f"{signed} is of a log that was begun: restore it, or look whether its disk is mounted"
            else:
                do = "begin a new log, and only that, with countersign-ledger begin"
            raise NotReady("LEDGER_MISSING", f"{settings.database} is not there; {do}")
        return
    postgres = settings.database.postgres
    connection_parameters(postgres)
    for file in (postgres.last_signed_dsn_file, postgres.key_store_dsn_file):
        if file is not None:
            trust_any = postgres.dangerously_trust_any_server
            parameters_from(file, postgres.authority, trust_any=trust_any)


def _connectors_keys(file: Path | None) -> None:
    if file is not None:
        for system in TrustRoots.load(file).systems.values():
            VerifyKey(system.answer_verify_key)


def _witnesses(settings: LedgerSettings) -> None:
    if settings.witnessing is not None:
        load_policy(settings.witnessing, load_keys(settings).verifiers)
        trusted(settings.witnessing)


def _served(settings: LedgerSettings) -> None:
    tls = settings.http.tls if settings.http is not None else None
    if tls is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        raise SettingsError(
            f"{tls.certificate} with the key {tls.key} cannot be used: {error}"
        ) from error
