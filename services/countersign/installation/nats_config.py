"""The NATS server's configuration: who may say and hear what on the bus.

Invariants:
- A client is who its certificate's SPIFFE ID says; there are no passwords, and nobody is let in without
  a certificate.
- Broker, policy, ledger and their streams share one account. Each connector has an account of its own,
  into which only its own orders' consumer and the subjects of its own answers and reports are imported.
  A connector can therefore not even name another system's subjects: the server never routes them to it,
  and where a connector makes the server send a reply, that reply stays in the connector's account.
- Within an account each user may publish and subscribe exactly what it needs.
- JetStream writes a message to disk before it acknowledges it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.identity import SpiffeId
from shared.settings import TlsFiles

PAYLOAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""An order: a sealed probe of 2 MiB with its proof, and room for headers."""
CONNECTIONS_MAX: Final = 256
"""Replicas and reconnecting clients of one installation; more is a fault or an attack."""
CONNECTIONS_OF_A_CONNECTOR_MAX: Final = 16
"""Replicas and what reconnects, and as many leaf nodes: no connector can take the places of all others."""
SUBSCRIPTIONS_OF_A_CONNECTOR_MAX: Final = 1024
"""Each connection has two, and a leaf node what is subscribed to behind it."""
REPLY_EXPIRES: Final = "30s"
"""How long a service may take to answer; callers wait 5 s."""
STREAM_BYTES_MAX: Final = 8 * 1024**3
"""Room on disk that may be reserved for each stream: twice the largest reservation of the broker, since
the server counts a stream twice when it is asked for again at a restart."""
MEMORY_BYTES_MAX: Final = 64 * 1024**2
"""Nothing of ours is kept in memory only."""

POLICY_SUBJECTS: Final = ("policy.evaluate",)
LEDGER_SUBJECTS: Final = (
    "ledger.append",
    "ledger.get_receipts",
    "ledger.look_up_search",
    "ledger.list_open_searches",
    "ledger.list_searches",
)
DOCUMENT_SUBJECTS: Final = ("ledger.publish", "ledger.list_documents")
"""For the policy service alone: what is published there binds every party."""
PUBLIC_DOCUMENT_SUBJECTS: Final = ("ledger.list_public_documents",)
"""For the broker: the same documents without what opens their commitments, so without the officers."""
RUNS_SUBJECTS: Final = ("runs.*",)
"""For connectors, of which each knows only its own."""
ANSWERS_STREAM: Final = "ANSWERS"
ANSWERS_CONSUMER: Final = "broker"
ORDERS_CONSUMER: Final = "connector"

SYSTEM_ACCOUNT: Final = "SYS"
_CORE: Final = "COUNTERSIGN"


@dataclass(frozen=True)
class NatsServer:
    """What differs between installations."""

    trust_domain: str
    host: str
    port: int
    tls: TlsFiles
    store: Path
    """Folder of JetStream's streams."""
    systems: Sequence[str]
    """Systems whose connectors may connect."""


def accounts(trust_domain: str, systems: Sequence[str]) -> dict[str, Any]:
    """The accounts, whatever server they are given to."""
    ordered = sorted(systems)
    made: dict[str, Any] = {
        SYSTEM_ACCOUNT: {"users": []},
        _CORE: {
            "jetstream": "enabled",
            "users": [
                _broker(trust_domain, ordered),
                _service(trust_domain, "policy", POLICY_SUBJECTS, says=DOCUMENT_SUBJECTS),
                _service(
                    trust_domain,
                    "ledger",
                    (
                        *(*LEDGER_SUBJECTS, *DOCUMENT_SUBJECTS),
                        *(*PUBLIC_DOCUMENT_SUBJECTS, *RUNS_SUBJECTS),
                    ),
                ),
            ],
            "exports": [export for system in ordered for export in _exports(system)],
        },
    }
    for system in ordered:
        made[account(system)] = _connector(trust_domain, system)
    return made


def leaf_users(trust_domain: str, systems: Sequence[str]) -> list[dict[str, str]]:
    """The users of leaf nodes: a connector's certificate leads into that connector's account."""
    return [
        {"user": str(SpiffeId(trust_domain, "connector", system)), "account": account(system)}
        for system in sorted(systems)
    ]


def render(server: NatsServer) -> str:
    """The configuration file. NATS reads JSON; the comment at its top is NATS's own syntax."""
    config = {
        "server_name": "countersign",
        "listen": f"{server.host}:{server.port}",
        "max_payload": PAYLOAD_BYTES_MAX,
        "max_connections": CONNECTIONS_MAX,
        "ping_interval": "10s",
        "ping_max": 2,
        "write_deadline": "10s",
        "tls": {
            "cert_file": str(server.tls.certificate),
            "key_file": str(server.tls.key),
            "ca_file": str(server.tls.authority),
            "min_version": "1.3",
            "verify_and_map": True,
            "handshake_first": True,
        },
        "jetstream": {
            "store_dir": str(server.store),
            "max_memory_store": MEMORY_BYTES_MAX,
            "max_file_store": STREAM_BYTES_MAX * (len(server.systems) + 2),
            "sync_interval": "always",
        },
        "system_account": SYSTEM_ACCOUNT,
        "accounts": accounts(server.trust_domain, server.systems),
    }
    return f"# Written by countersign, and written anew when it runs again.\n{json.dumps(config, indent=2)}\n"


def orders_stream(system: str) -> str:
    """Name of the stream that holds a system's orders."""
    return f"ORDERS_{system.upper().replace('-', '_')}"


def next_orders(system: str) -> str:
    """Under which a leaf node asks for a system's orders."""
    return f"next.{orders_stream(system)}"


def account(system: str) -> str:
    """Name of a system's account."""
    return f"SYSTEM_{system.upper().replace('-', '_')}"


def _user(
    identity: SpiffeId, publish: dict[str, list[str]], subscribe: Sequence[str], **more: object
) -> dict[str, Any]:
    return {
        "user": str(identity),
        "permissions": {"publish": publish, "subscribe": {"allow": list(subscribe)}, **more},
    }


def _broker(trust_domain: str, systems: Sequence[str]) -> dict[str, Any]:
    streams = [*(orders_stream(system) for system in systems), ANSWERS_STREAM]
    consumers = [(stream, ORDERS_CONSUMER) for stream in streams[:-1]]
    consumers.append((ANSWERS_STREAM, ANSWERS_CONSUMER))
    publish = [*POLICY_SUBJECTS, *LEDGER_SUBJECTS, *PUBLIC_DOCUMENT_SUBJECTS, "orders.>"]
    publish += [
        f"$JS.API.STREAM.{verb}.{stream}"
        for stream in streams
        for verb in ("CREATE", "UPDATE", "INFO", "PURGE", "MSG.GET")
    ]
    for stream, consumer in consumers:
        publish += [
            f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}",
            f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}",
            f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
        ]
    publish += [
        # What is nobody's answer may stand under a name that nobody can say; brokers of 0.1 purge there.
        f"$JS.API.STREAM.MSG.DELETE.{ANSWERS_STREAM}",
        f"$JS.API.CONSUMER.MSG.NEXT.{ANSWERS_STREAM}.{ANSWERS_CONSUMER}",
        f"$JS.ACK.{ANSWERS_STREAM}.{ANSWERS_CONSUMER}.>",
    ]
    identity = SpiffeId(trust_domain, "service", "broker")
    # From the server alone: nobody may publish there.
    given_up = [
        f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.*.{ORDERS_CONSUMER} broker"
        for kind in ("MAX_DELIVERIES", "MSG_TERMINATED")
    ]
    return _user(identity, {"allow": publish}, ["_INBOX_broker.>", *given_up])


def _service(
    trust_domain: str, name: str, subjects: Sequence[str], says: Sequence[str] = ()
) -> dict[str, Any]:
    """A service says this and replies, and hears its subjects only as a member of its queue."""
    return _user(
        SpiffeId(trust_domain, "service", name),
        {"allow": list(says)} if says else {"deny": [">"]},
        [*(f"{subject} {name}" for subject in subjects), f"_INBOX_{name}.>"],
        allow_responses={"max": 1, "expires": REPLY_EXPIRES},
    )


def _connector_subjects(system: str) -> tuple[str, str, str, str]:
    stream = orders_stream(system)
    return (
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{ORDERS_CONSUMER}",
        f"$JS.ACK.{stream}.{ORDERS_CONSUMER}.>",
        f"answers.{system}.>",
        f"runs.{system}",
    )


def _exports(system: str) -> list[dict[str, Any]]:
    pull, acknowledge, answers, runs = _connector_subjects(system)
    to = [account(system)]
    return [
        # One pull request brings many orders, hence a stream of responses.
        {"service": pull, "response_type": "stream", "accounts": to},
        {"service": acknowledge, "accounts": to},
        {"service": answers, "accounts": to},
        {"service": runs, "accounts": to},
    ]


def _connector(trust_domain: str, system: str) -> dict[str, Any]:
    subjects = _connector_subjects(system)
    identity = SpiffeId(trust_domain, "connector", system)
    return {
        "users": [
            _user(identity, {"allow": list(subjects)}, [f"_INBOX_connector-{system}.>"]),
        ],
        "limits": {
            "max_connections": CONNECTIONS_OF_A_CONNECTOR_MAX,
            "max_leafnodes": CONNECTIONS_OF_A_CONNECTOR_MAX,
            "max_subscriptions": SUBSCRIPTIONS_OF_A_CONNECTOR_MAX,
        },
        "imports": [
            *({"service": {"account": _CORE, "subject": subject}} for subject in subjects),
            # Leaf nodes let nothing below $JS.API pass: the same under a name of its own.
            {"service": {"account": _CORE, "subject": subjects[0]}, "to": next_orders(system)},
        ],
    }
