"""TLS files: read anew when they change, so that a renewed certificate needs no restart."""

import logging
import ssl
from collections.abc import Callable
from typing import TypeVar

from shared.settings import BusSettings, SettingsError, TlsFiles

log = logging.getLogger(__name__)

Taken = TypeVar("Taken")


class Renewal:
    """Tells when TLS files were renewed. While they are missing, half-written or wrong, what worked does."""

    def __init__(self, tls: TlsFiles) -> None:
        """To be made before the files are read: what changes in between is then read once more."""
        self._tls = tls
        self._taken = _modified(tls)
        self._unfit: tuple[int, ...] | None = None

    def renewed(self, take: Callable[[], Taken]) -> Taken | None:
        """What `take` makes of the files, if they are others than those that were taken, and fit together.

        `take` may raise OSError. A warning says so once when they do not fit.
        """
        now = _modified(self._tls)
        if now in ((), self._taken):
            return None
        try:
            _require_fit(self._tls)
            taken = take()
        except OSError as error:
            # Once: each connection comes by. Whoever looks at the new certificate alone finds nothing amiss.
            if now != self._unfit:
                self._unfit = now
                fields = {"certificate": str(self._tls.certificate), "why": str(error)}
                log.warning("renewed certificate cannot be shown yet", extra={"fields": fields})
            return None
        self._taken = now
        return taken

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have the context present what was renewed."""
        self.renewed(lambda: load(context, self._tls))


def _modified(tls: TlsFiles) -> tuple[int, ...]:
    """Changes whenever one of the files does; empty while one is missing."""
    try:
        return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key, tls.authority))
    except OSError:
        return ()


def _require_fit(tls: TlsFiles) -> None:
    """Raise OSError when the files are half-written: no PEM, or a key that is not the certificate's."""
    context = ssl.create_default_context(cafile=str(tls.authority))
    context.load_cert_chain(tls.certificate, tls.key)


def bus_context(settings: BusSettings) -> ssl.SSLContext:
    """Presents our certificate and checks the server's. Raises SettingsError."""
    try:
        context = ssl.create_default_context(cafile=str(settings.tls.authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        load(context, settings.tls)
    except OSError as error:
        files = ", ".join(str(path) for path in settings.tls.model_dump().values())
        raise SettingsError(f"cannot use the TLS files {files}: {error}") from error
    return context


def load(context: ssl.SSLContext, tls: TlsFiles) -> None:
    """Takes certificate and key as they are now, and authorities to those that it has. Raises OSError."""
    context.load_verify_locations(tls.authority)
    context.load_cert_chain(tls.certificate, tls.key)
