"""A process like our services, which does what its configuration says: `python FILE CONFIG.toml`."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from opentelemetry import metrics, trace

from shared import telemetry
from shared.errors import Unavailable
from shared.process import run_process
from shared.registry import RegistryError
from shared.settings import ProcessSettings, TlsFiles

SECRET = "the narrative of a case"


class UnderTestSettings(ProcessSettings):
    """What to do."""

    does: Literal[
        "runs",
        "reports",
        "ends",
        "waits at the start",
        "is refused",
        "misconfigured",
        "breaks",
        "breaks later",
        "lacks its bus",
        "drains",
    ]
    tls: TlsFiles | None = None


@dataclass
class Running:
    """Nothing, which runs."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_ready: bool = True


@contextlib.asynccontextmanager
async def running(settings: UnderTestSettings) -> AsyncIterator[Running]:
    """Does it."""
    if settings.does == "waits at the start":
        sys.stdout.write("waiting\n")
        sys.stdout.flush()
        await asyncio.Event().wait()
    if settings.does == "is refused":
        raise Unavailable("BUS_UNAVAILABLE", "no NATS server answered")
    if settings.does == "misconfigured":
        raise RegistryError("cannot read the registry")
    if settings.does == "breaks":
        raise ValueError(SECRET)
    if settings.does == "reports":
        with telemetry.span("a piece of work"):
            telemetry.meter.create_counter("countersign.pieces").add(1)
            providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
            sdk = [type(one).__module__ for one in providers if "sdk" in type(one).__module__]
            threads = [thread.name for thread in threading.enumerate()]
            fields = {"sdk": sdk, "threads": threads}
            logging.getLogger(__name__).info("reports", extra={"fields": fields})
    one = Running()
    if settings.does == "ends":
        one.ended.set()
    one.is_ready = settings.does != "lacks its bus"
    try:
        yield one
        if settings.does == "breaks later":
            raise ValueError(SECRET)
    finally:
        if settings.does == "drains":
            sys.stdout.write("draining\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
        sys.stdout.write("closed\n")


def main() -> None:
    """As a service's."""
    run_process("test", "Does what a test says.", UnderTestSettings, running)


if __name__ == "__main__":
    main()
