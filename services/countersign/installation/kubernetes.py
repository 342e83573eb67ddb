"""What an installation on Kubernetes mounts and the manifests do not bring: parties, keys, certificates.

`parties` and `vocabulary` put the documents of an installation into ConfigMaps: nothing in them is secret.
`trial` makes a throw-away world besides, with everybody's keys, as `countersign up` does on one machine.
"""

import base64
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from countersign.installation.certificates import TRUST_DOMAIN, ensure_certificates
from countersign.installation.directives import sign_directives
from countersign.installation.keys import ensure_keys, ensure_witness_key, write_trust_roots
from countersign.installation.layout import Layout
from countersign.installation.nats_config import accounts, leaf_users
from countersign.installation.pki import Authority, Issued
from countersign.installation.prepare import OVERSIGHT, ensure_documents, systems_run_here
from directive.book import LIBRARY
from directive.vocabulary import EARLIER, FILE_NAME, Vocabulary
from directive.vocabulary_signature import SIGNATURE_FILE
from shared.identity import SpiffeId
from shared.registry import Registry
from tlog.cosignature import parse_log_vkey

CONFIG_MAP_BYTES_MAX: Final = 1024**2
"""What Kubernetes takes in one ConfigMap."""
SERVICES: Final = ("broker", "ledger", "nats", "policy")
WITNESS_URL: Final = "http://witness:8640"

Manifest = dict[str, Any]


class TooLarge(Exception):
    """The documents do not fit; the message says by how much."""


@dataclass(frozen=True)
class Documents:
    """Where the documents of an installation lie."""

    registry: Path
    directives: Path
    trust_roots: Path
    witness_policy: Path | None = None
    """tlog-policy file with the witnesses, for a ledger that has some."""


def parties(documents: Documents, trust_domain: str, namespace: str) -> Manifest:
    """The ConfigMap of the documents. Raises RegistryError, TooLarge, OSError."""
    systems = sorted(Registry.load(documents.registry).systems)
    roots = documents.trust_roots.read_text(encoding="utf-8")
    log_keys = [str(key) for key in json.loads(roots)["log_verifier_keys"]]
    said = {
        "registry.toml": documents.registry.read_text(encoding="utf-8"),
        "trust-roots.json": roots,
        "nats-accounts.conf": _nats({"accounts": accounts(trust_domain, systems)}),
        "nats-leaf-users.conf": _nats({"users": leaf_users(trust_domain, systems)}),
        "trust-domain": trust_domain,
        "log-keys": json.dumps(log_keys),
        "log-origin": parse_log_vkey(log_keys[0]).name,
    }
    if documents.witness_policy is not None:
        said["witnesses.policy"] = documents.witness_policy.read_text(encoding="utf-8")
    packed = base64.b64encode(_packed(documents.directives)).decode()
    return _config_map("countersign-parties", namespace, said, {"directives.tar.gz": packed})


def vocabulary(documents: Documents, namespace: str) -> Manifest:
    """The ConfigMap of the words of directives. Raises VocabularyError, TooLarge, OSError."""
    words = Vocabulary.load(documents.directives)
    said = {FILE_NAME: words.text}
    said |= {EARLIER.replace("*", version): one.text for version, one in words.earlier.items()}
    note = documents.directives / SIGNATURE_FILE
    if note.exists():
        said[SIGNATURE_FILE] = note.read_bytes().decode("utf-8")
    return _config_map("countersign-vocabulary", namespace, said)


def trial(folder: Path, namespace: str, now: datetime) -> list[Manifest]:
    """Everything that the manifests want, with keys of everybody. Raises BadKey, PkiError, RegistryError,
    VocabularyError, TooLarge.

    Keys, registry and directives are made once in the folder; certificates are new each time.
    """
    layout = Layout(folder)
    registry = ensure_documents(layout)
    write_trust_roots(layout.trust_roots, ensure_keys(layout.keys, registry))
    sign_directives(layout, registry)
    _write_policy(layout, ensure_witness_key(layout.keys))
    ensure_certificates(layout, {}, now)  # of the authority alone
    documents = Documents(layout.registry, layout.directives, layout.trust_roots, layout.policy)
    made = [parties(documents, TRUST_DOMAIN, namespace), vocabulary(documents, namespace)]
    # The manifests run one connector.
    system = systems_run_here(registry)[0]
    made += [_secret(name, of, namespace) for name, of in _keys(layout, system).items()]
    authority = Authority.load(layout.authority, layout.authority_key)
    listeners = {name: SpiffeId(TRUST_DOMAIN, "service", name) for name in SERVICES}
    listeners["connector"] = SpiffeId(TRUST_DOMAIN, "connector", system)
    for name, identity in listeners.items():
        hosts = _hosts(name, namespace)
        issued = authority.issue(identity, now, listens=True, hosts=hosts)
        made.append(_secret(f"{name}-tls", _tls(authority, issued), namespace))
    for ori in registry.agencies:
        issued = authority.issue(SpiffeId(TRUST_DOMAIN, "agency", ori), now, listens=False)
        provider = layout.keys.identity_provider(ori).read_bytes()
        files = _tls(authority, issued) | {"identity-provider.pem": provider}
        made.append(_secret(f"client-{ori.lower()}", files, namespace))
    issued = authority.issue(OVERSIGHT, now, listens=False)
    made.append(_secret("client-oversight", _tls(authority, issued), namespace))
    return made


def _hosts(name: str, namespace: str) -> tuple[str, ...]:
    """What the service and each of its pods is called within the cluster."""
    ends = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    return tuple(f"{one}{end}" for one in (name, f"*.{name}-pods") for end in ends)


def _keys(layout: Layout, system: str) -> dict[str, Mapping[str, bytes]]:
    keys = layout.keys
    files = {
        "broker-keys": {"order.pem": keys.broker_order},
        "ledger-keys": {"note.pem": keys.ledger_note},
        "witness-keys": {"witness.key": keys.witness},
        "connector-keys": {"answer.pem": keys.answer(system), "sealing.pem": keys.sealing(system)},
    }
    return {
        name: {key: path.read_bytes() for key, path in of.items()} for name, of in files.items()
    }


def _tls(authority: Authority, issued: Issued) -> dict[str, bytes]:
    """The three files, named as cert-manager names them."""
    return {
        "tls.crt": issued.certificate_pem,
        "tls.key": issued.key_pem,
        "ca.crt": authority.certificate_pem,
    }


def _config_map(
    name: str, namespace: str, data: Mapping[str, str], packed: Mapping[str, str] | None = None
) -> Manifest:
    size = sum(len(value.encode()) for value in (*data.values(), *(packed or {}).values()))
    if size > CONFIG_MAP_BYTES_MAX:
        raise TooLarge(
            f"{name} comes to {size} bytes, and a ConfigMap takes {CONFIG_MAP_BYTES_MAX}"
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(name, namespace),
        "data": dict(data),
        **({"binaryData": dict(packed)} if packed else {}),
    }


def _secret(name: str, files: Mapping[str, bytes], namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(name, namespace),
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in files.items()},
    }


def _metadata(name: str, namespace: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/part-of": "countersign"},
    }


def _nats(section: Mapping[str, Any]) -> str:
    """A section of a NATS configuration, to be included in one."""
    return f"# Made by countersign kubernetes.\n{json.dumps(section, indent=1)}\n"


def _write_policy(layout: Layout, witness_vkey: str) -> None:
    log_vkey = layout.keys.ledger_vkey.read_text(encoding="ascii").strip()
    layout.policy.write_text(
        f"log {log_vkey}\nwitness trial {witness_vkey} {WITNESS_URL}\nquorum trial\n",
        encoding="ascii",
    )


def _packed(directives: Path) -> bytes:
    """The folder as an archive, of which the same files make the same bytes."""
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(directives.rglob("*")):
            inside = path.relative_to(directives)
            if not path.is_file() or inside.parts[0] == LIBRARY or path.name.startswith("."):
                continue
            entry = tarfile.TarInfo(str(inside))
            entry.size, entry.mode = path.stat().st_size, 0o444
            with path.open("rb") as file:
                archive.addfile(entry, file)
    packed = io.BytesIO()
    unpacked.seek(0)
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as compressed:
        shutil.copyfileobj(unpacked, compressed)
    return packed.getvalue()
