"""What a machine for production reads below /etc/countersign: configuration, keys, requests for certificates.

The processes are systemd's (deploy/systemd), the certificates an authority's that is not ours. Keys are made
here once and never leave; what others hold of them goes into the trust roots.

Made anew at each run: registry, directives, trust roots, the configuration of the bus. Made once, and then
the operator's own: the configuration of each process, keys, requests.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from countersign.installation.files import PUBLIC_MODE, write_for_group, write_public, write_secret
from countersign.installation.keys import sealing_key_at, signing_key_at, text_of
from countersign.installation.nats_config import NatsServer, render
from countersign.installation.pki import host_name, request
from countersign.installation.ports import LOOPBACK, Ports, address
from countersign.installation.prepare import HEARTBEAT_S
from directive.book import LIBRARY
from shared import toml
from shared.errors import NotAuthentic
from shared.identity import Kind, SpiffeId
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError, TlsFiles
from tlog.note import Verifier

CONFIGURATION: Final = Path("/etc/countersign")
STATE: Final = Path("/var/lib/countersign")
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104  # what agencies reach must listen where they are
OPEN_MODE: Final = 0o755
SERVICES: Final = ("nats", "ledger", "policy", "broker")
OWN_ROOTS: Final[Mapping[str, type]] = {
    "log_verifier_keys": list,
    "broker_verify_keys": list,
    "systems": dict,
}
"""What this machine has a part in, of the trust roots."""


@dataclass(frozen=True)
class Connector:
    """The system behind, when it is on this machine."""

    system: str
    pictures: Path
    threshold: float
    gallery: str = ""
    """The only one of the system when empty."""


@dataclass(frozen=True)
class Answers:
    """What only the operator knows."""

    trust_domain: str
    hosts: tuple[str, ...]
    """Names under which agencies reach this machine; they stand in its certificates."""
    registry: Path
    directives: Path
    trust_roots: Path
    """Everybody else's public keys (JSON)."""
    connector: Connector | None = None
    witnesses: Path | None = None
    """tlog-policy file with who must cosign the log."""


@dataclass(frozen=True)
class Machine:
    """Where things lie on a machine."""

    configuration: Path = CONFIGURATION
    state: Path = STATE

    def config(self, process: str) -> Path:
        """Configuration of a process."""
        return self.configuration / f"{process}.toml"

    def tls(self, process: str) -> TlsFiles:
        """Its certificate and key, and the authority of everybody's."""
        folder = self.configuration / "tls"
        return TlsFiles(
            certificate=folder / f"{process}.pem",
            key=folder / f"{process}-key.pem",
            authority=folder / "authority.pem",
        )

    def request(self, process: str) -> Path:
        """What the authority is asked to sign."""
        return self.configuration / "tls" / f"{process}.csr"

    def key(self, name: str) -> Path:
        """A key that signs or opens."""
        return self.configuration / "keys" / name

    @property
    def trust_roots(self) -> Path:
        """Everybody's public keys, and this machine's."""
        return self.configuration / "trust-roots.json"

    @property
    def registry(self) -> Path:
        """Who takes part."""
        return self.configuration / "registry.toml"

    @property
    def directives(self) -> Path:
        """The words of directives, and the connector's copy of them."""
        return self.configuration / "directives"

    @property
    def witnesses(self) -> Path:
        """Who must cosign the log."""
        return self.configuration / "witnesses.policy"


@dataclass
class Prepared:
    """What became of it."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    """Made before, and left alone."""
    wanted: list[Path] = field(default_factory=list)
    """What the authority still has to give."""


def prepare_machine(machine: Machine, answers: Answers, ports: Ports) -> Prepared:
    """Writes what can be written. Raises SettingsError, RegistryError and BadKey, and has then written keys
    at most."""
    registry = Registry.load(answers.registry)
    if SpiffeId(answers.trust_domain, "service", "broker") != _parsed(answers.trust_domain):
        raise SettingsError(
            f"--trust-domain: {answers.trust_domain!r} is none: give lower-case text"
        )
    for host in answers.hosts:
        _nameable(host)
    if answers.connector is not None:
        _gallery(registry, answers.connector)
    done = Prepared()
    for folder in (machine.configuration, machine.tls("nats").certificate.parent):
        # Every process has a user of its own, and reads here what is not secret.
        folder.mkdir(mode=OPEN_MODE, parents=True, exist_ok=True)
        folder.chmod(OPEN_MODE)
    roots = _trust_roots(machine, answers, done)
    tables = _tables(machine, answers, registry, ports)
    _registry(answers.registry, machine.registry, done)
    _copy_folder(answers.directives, machine.directives, done)
    if answers.witnesses is not None:
        _copy(answers.witnesses, machine.witnesses, done)
    _always(machine.trust_roots, json.dumps(roots, indent=2) + "\n", done)
    _always(machine.configuration / "nats.conf", _nats(machine, answers, registry, ports), done)
    for process, table in tables.items():
        title = f"countersign-{process}: yours to edit. Every key is in docs/configuration.md."
        _once(machine.config(process), toml.render(table, title), done)
    for process in (*SERVICES, *(["connector"] if answers.connector else [])):
        _ask_for_certificate(machine, answers, process, done)
    authority = machine.tls("nats").authority
    if not authority.exists():
        done.wanted.append(authority)
    return done


def _trust_roots(machine: Machine, answers: Answers, done: Prepared) -> dict[str, Any]:
    """Everybody's keys with this machine's own, which are made when they are missing."""
    roots = _read_roots(answers.trust_roots)
    names = ["note.pem", "order.pem", *(["answer.pem", "sealing.pem"] if answers.connector else [])]
    for name in names:
        (done.kept if machine.key(name).exists() else done.written).append(machine.key(name))
    log = Verifier(_origin(answers), signing_key_at(machine.key("note.pem")).verify_key.raw)
    order = signing_key_at(machine.key("order.pem")).verify_key.raw
    _own(answers.trust_roots, roots, "log_verifier_keys", log.vkey)
    _own(answers.trust_roots, roots, "broker_verify_keys", text_of(order))
    if answers.connector is not None:
        keys = {
            "sealing_public_key": text_of(sealing_key_at(machine.key("sealing.pem")).public_key),
            "answer_verify_key": text_of(signing_key_at(machine.key("answer.pem")).verify_key.raw),
        }
        if roots.setdefault("systems", {}).setdefault(answers.connector.system, keys) != keys:
            raise SettingsError(
                f"{answers.trust_roots}: systems.{answers.connector.system}: other keys than those in "
                f"{machine.key('')}; remove one or the other"
            )
    try:
        TrustRoots.model_validate_json(json.dumps(roots))
    except ValueError as error:
        raise SettingsError(f"{answers.trust_roots}: {error}") from error
    return roots


def _read_roots(file: Path) -> dict[str, Any]:
    """As the file has them: what is not there yet is added before all is checked."""
    try:
        roots = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: {error}; name the file with --trust-roots") from error
    if not isinstance(roots, dict) or not all(
        isinstance(roots.get(name, shape()), shape) for name, shape in OWN_ROOTS.items()
    ):
        raise SettingsError(f"{file}: these are no trust roots; name the file with --trust-roots")
    return roots


def _own(file: Path, roots: dict[str, Any], name: str, own: str) -> None:
    if own not in roots.setdefault(name, [own]):
        raise SettingsError(
            f"{file}: {name}: this machine's own key {own} is not among them; add it, or remove {name} to "
            "have it put there"
        )


def _parsed(trust_domain: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(f"spiffe://{trust_domain}/service/broker")
    except NotAuthentic:
        return None


def _nameable(host: str) -> None:
    try:
        host_name(host)
    except ValueError as error:
        raise SettingsError(f"--host: {host!r} is no name or address: {error}") from error


def _origin(answers: Answers) -> str:
    return f"{answers.trust_domain}/ledger"


def _gallery(registry: Registry, connector: Connector) -> str:
    galleries = sorted(
        name for name, one in registry.galleries.items() if one.system == connector.system
    )
    if connector.gallery in galleries:
        return connector.gallery
    if len(galleries) == 1 and not connector.gallery:
        return galleries[0]
    raise SettingsError(
        f"the registry gives {connector.system!r} the galleries {', '.join(galleries) or '(none)'}; name "
        "one of them with --gallery"
    )


def _tables(
    machine: Machine, answers: Answers, registry: Registry, ports: Ports
) -> Mapping[str, toml.Table]:
    tables: dict[str, toml.Table] = {
        "ledger": _ledger(machine, answers, ports),
        "policy": {
            **_who(machine, answers),
            "vocabulary": str(machine.directives),
            **_where(machine, "policy", f"{EVERYWHERE}:{ports.policy}", ports),
        },
        "broker": {
            **_who(machine, answers),
            "order_signing_key": str(machine.key("order.pem")),
            **_where(machine, "broker", f"{EVERYWHERE}:{ports.broker}", ports),
        },
    }
    if answers.connector is not None:
        one = answers.connector
        tables["connector"] = {
            **_who(machine, answers),
            "system": one.system,
            "gallery": _gallery(registry, one),
            "directives": str(machine.directives),
            "answer_signing_key": str(machine.key("answer.pem")),
            "probe_opening_key": str(machine.key("sealing.pem")),
            "state": str(machine.state / "connector"),
            "behind": {"adapter": "reference", "folder": str(one.pictures)},
            "scale": {"threshold": one.threshold},
            **_where(machine, "connector", address(ports.connectors[one.system]), ports),
        }
    return tables


def _who(machine: Machine, answers: Answers) -> dict[str, toml.Value]:
    return {
        "trust_domain": answers.trust_domain,
        "registry": str(machine.registry),
        "trust_roots": str(machine.trust_roots),
    }


def _where(machine: Machine, process: str, listen: str, ports: Ports) -> dict[str, toml.Table]:
    tls = {key: str(path) for key, path in machine.tls(process)}
    return {
        "listen": {"address": listen, "tls": tls},
        "bus": {"servers": [f"tls://{address(ports.nats)}"], "tls": tls},
    }


def _ledger(machine: Machine, answers: Answers, ports: Ports) -> toml.Table:
    data, apart = machine.state / "ledger", machine.state / "ledger-apart"
    witnessing: toml.Table = {
        "policy": str(machine.witnesses),
        "cosigned_checkpoint": str(data / "cosigned-checkpoint"),
    }
    return {
        **_who(machine, answers),
        "database": str(data / "ledger.sqlite3"),
        "origin": _origin(answers),
        "signing_keys": [str(machine.key("note.pem"))],
        # In no backup of the database: see docs/runbooks/restore-from-backup.md.
        "last_signed": str(apart / "last-signed"),
        "heartbeat_s": HEARTBEAT_S,
        **_where(machine, "ledger", f"{EVERYWHERE}:{ports.ledger}", ports),
        "http": {"listen": f"{EVERYWHERE}:{ports.ledger_http}"},
        "openings": {
            "provider_keys": str(apart / "opening-keys"),
            "key_store": str(apart / "key-store.sqlite3"),
        },
        **({"witnessing": witnessing} if answers.witnesses is not None else {}),
    }


def _nats(machine: Machine, answers: Answers, registry: Registry, ports: Ports) -> str:
    return render(
        NatsServer(
            trust_domain=answers.trust_domain,
            host=LOOPBACK,
            port=ports.nats,
            tls=machine.tls("nats"),
            store=machine.state / "nats",
            systems=sorted(registry.systems),
        )
    )


def _ask_for_certificate(machine: Machine, answers: Answers, process: str, done: Prepared) -> None:
    tls = machine.tls(process)
    kind: Kind = "service"
    name = process
    if process == "connector" and answers.connector is not None:
        kind, name = "connector", answers.connector.system
    if tls.key.exists():
        done.kept.append(tls.key)
    else:
        asked = request(SpiffeId(answers.trust_domain, kind, name), answers.hosts)
        # The key last: a crash in between leaves a request without one, and both are made again.
        write_public(machine.request(process), asked.certificate_pem)
        write_secret(tls.key, asked.key_pem)
        done.written += [machine.request(process), tls.key]
    if not tls.certificate.exists():
        done.wanted.append(tls.certificate)


def _once(file: Path, text: str, done: Prepared) -> None:
    if file.exists():
        done.kept.append(file)
        return
    write_public(file, text.encode())
    done.written.append(file)


def _always(file: Path, text: str, done: Prepared) -> None:
    write_public(file, text.encode())
    done.written.append(file)


def _copy(source: Path, target: Path, done: Prepared) -> None:
    if source.resolve() != target.resolve():
        _always(target, source.read_text(encoding="utf-8"), done)


def _registry(source: Path, target: Path, done: Prepared) -> None:
    """It may list officers: for the processes, which the machine's rights name, and for no other user."""
    if source.resolve() != target.resolve():
        write_for_group(target, source.read_bytes())
        done.written.append(target)


def _copy_folder(source: Path, target: Path, done: Prepared) -> None:
    """Complete under another name first: a half-copied folder would lack a prohibition."""
    if source.resolve() == target.resolve():
        return
    unfinished, before = target.with_name(".directives"), target.with_name(".directives-before")
    for left in (unfinished, before):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns(LIBRARY))
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(OPEN_MODE if path.is_dir() else PUBLIC_MODE)
    # A crash between the two leaves no folder, which every process refuses; the next run puts it there.
    if target.exists():
        target.rename(before)
    unfinished.rename(target)
    shutil.rmtree(before, ignore_errors=True)
    done.written.append(target)


def listed(paths: Sequence[Path]) -> list[str]:
    """As text."""
    return [str(path) for path in paths]
