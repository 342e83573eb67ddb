"""TLS files: read anew when they change, so that a renewed certificate needs no restart."""

import ssl

from shared.settings import BusSettings, SettingsError, TlsFiles


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


def modified(tls: TlsFiles) -> tuple[int, ...]:
    """Changes whenever one of the files does. Raises OSError."""
    return tuple(path.stat().st_mtime_ns for path in (tls.certificate, tls.key, tls.authority))
