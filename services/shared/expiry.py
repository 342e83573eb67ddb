"""How long a process's certificates still last: a metric, and a warning in time.

The files are read anew each time, as they are for connections, so that a renewal shows here too.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from cryptography import x509
from opentelemetry.metrics import CallbackOptions, Observation
from pydantic import BaseModel

from shared import telemetry
from shared.clock import Clock
from shared.settings import TlsFiles

log = logging.getLogger(__name__)

WARN_BEFORE: Final = timedelta(days=14)
"""Whatever renews certificates does it with a month left; two weeks are time to find out why it did not."""
LOOK_EVERY_S: Final = 3600.0
_DAY: Final = timedelta(days=1)


def certificates_in(settings: BaseModel, role: str = "") -> dict[str, TlsFiles]:
    """The certificates that a configuration names, by the section that names them: `listen`, `bus`, …"""
    if isinstance(settings, TlsFiles):
        return {role: settings}
    found: dict[str, TlsFiles] = {}
    for name, value in settings:
        inner = role if name == "tls" else f"{role}.{name}".lstrip(".")
        if isinstance(value, BaseModel):
            found |= certificates_in(value, inner)
        elif isinstance(value, Mapping):
            for key, one in value.items():
                if isinstance(one, BaseModel):
                    found |= certificates_in(one, f"{inner}.{key}")
    return found


class Expiry:
    """Watches certificates."""

    def __init__(self, certificates: Mapping[str, TlsFiles], clock: Clock) -> None:
        self._certificates = certificates
        self._clock = clock

    def left(self) -> Iterator[tuple[str, timedelta]]:
        """How long each lasts. One that cannot be read is left out: it keeps nobody from starting."""
        now = self._clock.now()
        for role, tls in self._certificates.items():
            try:
                chain = x509.load_pem_x509_certificates(tls.certificate.read_bytes())
            except (OSError, ValueError):
                log.warning("certificate cannot be read", extra={"fields": {"role": role}})
                continue
            # The authority's own in the chain as much as ours: peers look at both.
            yield role, min(one.not_valid_after_utc for one in chain) - now

    def observe(self) -> None:
        """Has them measured from now on. Once for each process: gauges have no end."""
        telemetry.meter.create_observable_gauge(
            "countersign.certificate.left",
            [self.measure],
            unit="d",
            description="Days until a certificate of this process lapses; negative once it has",
        )

    def measure(self, _: CallbackOptions) -> list[Observation]:
        """The days that each lasts."""
        return [Observation(left / _DAY, {"role": role}) for role, left in self.left()]

    def warn(self) -> None:
        """Says in the log which lapse soon, and which have."""
        for role, left in self.left():
            fields = {"fields": {"role": role, "days": round(left / _DAY, 1)}}
            if left <= timedelta(0):
                log.error("certificate has lapsed", extra=fields)
            elif left < WARN_BEFORE:
                log.warning("certificate lapses soon", extra=fields)

    async def keep_warning(self) -> None:
        """For ever, until it is cancelled."""
        while True:
            self.warn()
            await asyncio.sleep(LOOK_EVERY_S)
