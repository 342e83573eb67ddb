"""The life of a process: read its configuration, run until told to stop, stop in order."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol, TypeVar

import uvloop

from shared import logs, systemd, telemetry
from shared.clock import SystemClock
from shared.config_check import Checks
from shared.config_command import run_config
from shared.errors import ServiceError
from shared.expiry import Expiry, certificates_in
from shared.probes import Life, answering
from shared.registry import RegistryError
from shared.settings import ProbesSettings, ProcessSettings, SettingsError
from shared.signing import BadKey

log = logging.getLogger(__name__)

YOUNG_OBJECTS_MAX: Final = 10_000
"""A request makes thousands of short-lived objects; with Python's 700 the collector runs in each."""

Settings = TypeVar("Settings", bound=ProcessSettings)


class Running(Protocol):
    """A service that runs."""

    @property
    def ended(self) -> asyncio.Event:
        """Set when it cannot go on: the process ends with an error, to be started afresh."""

    @property
    def is_ready(self) -> bool:
        """Whether it can do its work now."""


def _no_checks(settings: ProcessSettings) -> Checks:
    return Checks()


def run_process(
    name: str,
    description: str,
    settings_class: type[Settings],
    running: Callable[[Settings], AbstractAsyncContextManager[Running]],
    checks: Callable[[Settings], Checks] = _no_checks,
) -> None:
    """The `main` of a service. Exit codes: 0 told to stop, 1 could not go on, 2 wrong configuration.

    `checks` says what `config check` is to look at besides the paths in the configuration.
    """
    if sys.argv[1:2] == ["config"]:
        sys.exit(run_config(name, settings_class, checks, sys.argv[2:]))
    parser = argparse.ArgumentParser(
        prog=f"countersign-{name}",
        description=f"{description} To look at a configuration and start nothing: "
        f"countersign-{name} config check|show CONFIG.",
    )
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    try:
        settings = settings_class.load(parser.parse_args().config)
    except SettingsError as error:
        sys.exit(_complain(name, error))
    logs.configure(f"countersign-{name}", settings.telemetry.log_level)
    try:
        started = telemetry.start(f"countersign-{name}", settings.telemetry)
    except SettingsError as error:
        sys.exit(_complain(name, error))
    try:
        expiry = Expiry(certificates_in(settings), SystemClock())
        expiry.observe()
        code = uvloop.run(_live(name, running(settings), settings.probes, expiry))
    except (SettingsError, RegistryError, BadKey) as error:
        code = _complain(name, error)
    except ServiceError as error:
        log.error("cannot start", extra={"fields": {"reason": error.reason, "why": error.message}})
        code = 1
    except Exception:  # its text may quote what it was given: only our logs speak
        log.critical("failed", exc_info=True)
        code = 1
    finally:
        started.stop()
    sys.exit(code)


def _complain(name: str, error: Exception) -> int:
    sys.stderr.write(f"countersign-{name}: {error}\n")
    return 2


def _settle() -> None:
    """What a started process consists of stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX)


async def _live(
    name: str,
    service: AbstractAsyncContextManager[Running],
    probes: ProbesSettings | None,
    expiry: Expiry,
) -> int:
    stop, ready, life = asyncio.Event(), asyncio.Event(), Life()
    here = asyncio.current_task()

    def told_to_stop() -> None:
        if not stop.is_set() and not ready.is_set() and here is not None:
            # A start may wait for other parts, and must be as easy to stop.
            here.cancel()
        life.stopping = True
        systemd.tell(systemd.STOPPING)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop)
    warning = asyncio.create_task(expiry.keep_warning())
    try:
        async with answering(probes, life), service as running:
            ready.set()
            life.working = running
            _settle()
            log.info("ready", extra={"fields": {"process": name}})
            systemd.tell(systemd.READY)
            await _first_of(stop, running.ended)
            if not stop.is_set():
                log.error("cannot go on; ending so that a fresh process takes over")
                return 1
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        warning.cancel()
    return 0


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
