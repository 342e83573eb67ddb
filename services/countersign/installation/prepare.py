"""Makes a data directory ready: keys, certificates, and a configuration for each process.

Idempotent: what must stay the same (keys, registry, directives, data) is made once; what follows from
it and from the options (certificates near their end, configuration) is written anew at each start.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.installation import bundled
from countersign.installation.certificates import TRUST_DOMAIN, ensure_certificates
from countersign.installation.directives import sign_directives
from countersign.installation.files import write_public, write_secret
from countersign.installation.keys import (
    ensure_keys,
    ensure_witness_key,
    issuer_of,
    write_trust_roots,
)
from countersign.installation.layout import Layout
from countersign.installation.nats_config import NatsServer, render
from countersign.installation.ports import LOOPBACK, Ports, address, url
from directive.book import LIBRARY
from shared import toml
from shared.clock import Clock, SystemClock
from shared.identity import Kind, SpiffeId
from shared.registry import Registry
from shared.settings import TlsFiles

FACES_THRESHOLD: Final = 0.78
"""From here on two of the drawn faces are called a possible match; see the faces' own README."""
FACES_FALSE_MATCH_RATE: Final = 0.01
"""Share of pairs of strangers among the drawn faces that reach it."""

HEARTBEAT_S: Final = 240.0
"""A monitor takes a log that says nothing for 300 s for one that hangs."""
PROBER: Final = SpiffeId(TRUST_DOMAIN, "operator", "up")
"""Asks the processes for their health."""
OVERSIGHT: Final = SpiffeId(TRUST_DOMAIN, "oversight", "police-commission")
"""Reads the ledger, and can ask for no search."""


@dataclass(frozen=True)
class ExternalBus:
    """A NATS server that somebody else runs, with the users of our own configuration."""

    url: str
    authority: Path | None = None
    """Authority of its certificate, when that is not the installation's own."""


@dataclass(frozen=True)
class Installation:
    """A data directory that is ready to be run."""

    layout: Layout
    registry: Registry
    ports: Ports
    external_bus: ExternalBus | None
    on_record: bool = True
    """Whether directives are taken from the ledger, where the start publishes them, or from the folder."""
    trust_domain: str = TRUST_DOMAIN
    """Of every certificate that its authority issues."""

    @property
    def log_origin(self) -> str:
        """The name of its log."""
        return f"{self.trust_domain}/ledger"

    def identity(self, kind: Kind, name: str) -> SpiffeId:
        """One of its own."""
        return SpiffeId(self.trust_domain, kind, name)

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems whose connectors run here."""
        return tuple(self.ports.connectors)

    @property
    def clients(self) -> dict[str, Path]:
        """The configuration file of each agency system."""
        return {ori: self.layout.client(ori) for ori in self.registry.agencies}


def systems_run_here(registry: Registry) -> tuple[str, ...]:
    """Systems with a gallery, but for commercial services, which would run their own connectors."""
    with_gallery = {gallery.system for gallery in registry.galleries.values()}
    return tuple(
        sorted(
            name
            for name, system in registry.systems.items()
            if name in with_gallery and not system.commercial
        )
    )


def ensure_documents(layout: Layout) -> Registry:
    """Puts registry and directives in place, unless they are there. Raises RegistryError."""
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not layout.registry.exists():
        write_public(layout.registry, bundled.registry().read_bytes())
    if not layout.directives.exists():
        # Complete under another name first: a half-copied folder would lack a prohibition.
        unfinished = layout.root / ".directives"
        shutil.rmtree(unfinished, ignore_errors=True)
        library = shutil.ignore_patterns(LIBRARY)
        shutil.copytree(bundled.directives(), unfinished, ignore=library)
        (unfinished / bundled.registry().name).unlink()
        unfinished.rename(layout.directives)
    return Registry.load(layout.registry)


def prepare(
    layout: Layout,
    registry: Registry,
    ports: Ports,
    external_bus: ExternalBus | None = None,
    clock: Clock | None = None,
    *,
    on_record: bool = True,
    trust_domain: str = TRUST_DOMAIN,
) -> Installation:
    """Writes everything that the processes read. Raises PkiError and BadKey for damaged files."""
    installation = Installation(layout, registry, ports, external_bus, on_record, trust_domain)
    keys = ensure_keys(layout.keys, registry, installation.log_origin)
    write_trust_roots(layout.trust_roots, keys)
    sign_directives(layout, registry, installation.log_origin)
    if ports.witness is not None:
        _write_policy(layout, ensure_witness_key(layout.keys), ports.witness)
        layout.witness.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = (clock or SystemClock()).now()
    ensure_certificates(layout, _identities(installation), now, trust_domain)
    for folder in (layout.streams, layout.ledger.parent, layout.log("x").parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for system in installation.systems:
        layout.connector_state(system).mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_nats(installation)
    for process, table in _configurations(installation).items():
        _write(layout.config(process), table, f"Configuration of {process}. Written at each start.")
    for ori in registry.agencies:
        name = registry.agencies[ori].name
        _write(layout.client(ori), _client(installation, ori), f"For agency systems of: {name}.")
    _write(layout.oversight_client, _oversight_client(installation), "For oversight: the ledger.")
    return installation


def _identities(installation: Installation) -> dict[SpiffeId, bool]:
    service = {
        installation.identity("service", name): True
        for name in ("nats", "ledger", "policy", "broker")
    }
    connectors = {
        installation.identity("connector", system): True for system in installation.systems
    }
    agencies = {
        installation.identity("agency", ori): False for ori in installation.registry.agencies
    }
    others = {installation.identity(one.kind, one.name): False for one in (OVERSIGHT, PROBER)}
    return {**service, **connectors, **agencies, **others}


def _write(file: Path, table: toml.Table, title: str) -> None:
    write_secret(file, toml.render(table, title).encode())


def _write_nats(installation: Installation) -> None:
    layout = installation.layout.root.absolute()
    server = NatsServer(
        trust_domain=installation.trust_domain,
        host=LOOPBACK,
        port=installation.ports.nats,
        tls=Layout(layout).tls(installation.identity("service", "nats")),
        store=Layout(layout).streams,
        systems=sorted(installation.registry.systems),
    )
    write_secret(installation.layout.nats_config, render(server).encode())


def _configurations(installation: Installation) -> Mapping[str, toml.Table]:
    tables = {
        "ledger": _ledger(installation),
        "policy": _policy(installation),
        "broker": _broker(installation),
    }
    if installation.ports.witness is not None:
        tables["witness"] = _witness(installation, installation.ports.witness)
    for system in installation.systems:
        tables[f"connector-{system}"] = _connector(installation, system)
    return tables


def _every_process(
    installation: Installation, file: Path, identity: SpiffeId, port: int
) -> "dict[str, toml.Table | toml.Value]":
    bus = installation.external_bus
    own = installation.layout.tls(identity)
    bus_tls = own
    if bus is not None and bus.authority is not None:
        bus_tls = own.model_copy(update={"authority": bus.authority.absolute()})
    url = bus.url if bus is not None else f"tls://{address(installation.ports.nats)}"
    return {
        "trust_domain": installation.trust_domain,
        "listen": {"address": address(port), "tls": _tls(installation, file, own)},
        "bus": {"servers": [url], "tls": _tls(installation, file, bus_tls)},
    }


def _tls(installation: Installation, file: Path, tls: TlsFiles) -> toml.Table:
    seen = installation.layout.seen_from
    return {
        "certificate": seen(file, tls.certificate),
        "key": seen(file, tls.key),
        "authority": seen(file, tls.authority),
    }


def _ledger(installation: Installation) -> toml.Table:
    layout, file = installation.layout, installation.layout.config("ledger")
    identity = installation.identity("service", "ledger")
    witnessing: dict[str, toml.Table | toml.Value] = {}
    if installation.ports.witness is not None:
        witnessing["witnessing"] = {
            "policy": layout.seen_from(file, layout.policy),
            "cosigned_checkpoint": layout.seen_from(file, layout.cosigned_checkpoint),
        }
    return {
        "database": layout.seen_from(file, layout.ledger),
        # Only the first time: a ledger that is gone must not be replaced by an empty one.
        "create_if_missing": not layout.ledger_begun.exists(),
        "origin": installation.log_origin,
        "signing_keys": [layout.seen_from(file, layout.keys.ledger_note)],
        "heartbeat_s": HEARTBEAT_S,
        "http": {"listen": address(installation.ports.ledger_http)},
        **witnessing,
        "registry": layout.seen_from(file, layout.registry),
        "trust_roots": layout.seen_from(file, layout.trust_roots),
        **_every_process(installation, file, identity, installation.ports.ledger),
    }


def _witness(installation: Installation, port: int) -> toml.Table:
    layout, file = installation.layout, installation.layout.config("witness")
    return {
        "database": layout.seen_from(file, layout.witness),
        # Only the first time: a witness that forgets can be shown a second history.
        "create_if_missing": not layout.witness_begun.exists(),
        "keys": [layout.seen_from(file, layout.keys.witness)],
        "listen": {"address": address(port)},
        "logs": {"ledger": {"keys": [layout.keys.ledger_vkey.read_text(encoding="ascii").strip()]}},
    }


def _write_policy(layout: Layout, witness_vkey: str, port: int) -> None:
    log_vkey = layout.keys.ledger_vkey.read_text(encoding="ascii").strip()
    lines = (
        "# Written at each start: the log, and the witness that must have cosigned its checkpoints.",
        f"log {log_vkey}",
        f"witness up {witness_vkey} {url(port)}",
        "quorum up",
    )
    write_public(layout.policy, "".join(f"{line}\n" for line in lines).encode())


def _policy(installation: Installation) -> toml.Table:
    layout, file = installation.layout, installation.layout.config("policy")
    identity = installation.identity("service", "policy")
    return {
        "registry": layout.seen_from(file, layout.registry),
        "vocabulary" if installation.on_record else "directives": layout.seen_from(
            file, layout.directives
        ),
        "trust_roots": layout.seen_from(file, layout.trust_roots),
        "authzen": {
            "address": address(installation.ports.authzen),
            # Each has its certificate here: there is nobody to be kept out.
            "agencies": list(installation.registry.agencies),
            "tls": _tls(installation, file, layout.tls(identity)),
        },
        **_every_process(installation, file, identity, installation.ports.policy),
    }


def _broker(installation: Installation) -> toml.Table:
    layout, file = installation.layout, installation.layout.config("broker")
    identity = installation.identity("service", "broker")
    return {
        "registry": layout.seen_from(file, layout.registry),
        "trust_roots": layout.seen_from(file, layout.trust_roots),
        "order_signing_key": layout.seen_from(file, layout.keys.broker_order),
        # One machine plays every agency, in load tests with a few officers.
        "limits": {
            "agency_calls_per_s": 20_000,
            "agency_calls_burst": 100_000,
            "agency_searches_per_minute": 600_000,
            "agency_searches_burst": 100_000,
            "agency_in_flight_max": 100_000,
            "officer_searches_per_minute": 600_000,
            "officer_searches_burst": 100_000,
            "officer_in_flight_max": 100_000,
        },
        **_every_process(installation, file, identity, installation.ports.broker),
    }


def _connector(installation: Installation, system: str) -> toml.Table:
    layout, file = installation.layout, installation.layout.config(f"connector-{system}")
    identity = installation.identity("connector", system)
    galleries = installation.registry.galleries
    return {
        "system": system,
        "gallery": min(name for name, gallery in galleries.items() if gallery.system == system),
        "registry": layout.seen_from(file, layout.registry),
        "trust_roots": layout.seen_from(file, layout.trust_roots),
        "directives": layout.seen_from(file, layout.directives),
        "answer_signing_key": layout.seen_from(file, layout.keys.answer(system)),
        "probe_opening_key": layout.seen_from(file, layout.keys.sealing(system)),
        "state": layout.seen_from(file, layout.connector_state(system)),
        "behind": {"adapter": "reference", "folder": str(bundled.gallery_folder())},
        "scale": {"threshold": FACES_THRESHOLD, "false_match_rate": FACES_FALSE_MATCH_RATE},
        **_every_process(installation, file, identity, installation.ports.connectors[system]),
    }


def _client(installation: Installation, ori: str) -> toml.Table:
    layout, file, ports = installation.layout, installation.layout.client(ori), installation.ports
    return {
        "agency": ori,
        "trust_roots": layout.seen_from(file, layout.trust_roots),
        "state": layout.seen_from(file, layout.client_state(ori)),
        "broker": {"address": address(ports.broker)},
        "ledger": {"address": address(ports.ledger), "url": url(ports.ledger_http)},
        "policy": {"address": address(ports.policy)},
        "tls": _tls(installation, file, layout.tls(installation.identity("agency", ori))),
        "identity_provider": {
            "issuer": issuer_of(ori),
            "signing_key": layout.seen_from(file, layout.keys.identity_provider(ori)),
        },
    }


def _oversight_client(installation: Installation) -> toml.Table:
    layout, file, ports = (
        installation.layout,
        installation.layout.oversight_client,
        installation.ports,
    )
    return {
        "trust_roots": layout.seen_from(file, layout.trust_roots),
        "ledger": {"address": address(ports.ledger), "url": url(ports.ledger_http)},
        "tls": _tls(installation, file, layout.tls(OVERSIGHT)),
    }
