"""Three NATS nodes in the place of an installation's one server, as production runs them.

Each keeps a copy of every stream, so that any one of them may break. A node counts as ready when
JetStream says that it has all that it missed. Each reaches each other over a link that a test can break.
"""

import contextlib
import http.client
import itertools
import json
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from countersign.installation.files import write_secret
from countersign.installation.parts import ANSWER_TIMEOUT_S, Part
from countersign.installation.ports import LOOPBACK, address
from support.installations import InstallationUnderTest, ProcessUnderTest
from support.links import Link
from support.nats_servers import free_port
from support.waiting import WAIT_S_MAX

NODES: Final = 3
LOOK_EVERY_S: Final = 0.1
NOWHERE: Final = address(1)
"""Nobody listens there. Nodes tell each other where others are, which would be a way past the links."""
_STREAMS: Final = "/jsz?accounts=true&streams=true"


@dataclass(frozen=True)
class JetStreamDoor:
    """Where a node says how it is."""

    port: int

    def answers(self) -> bool:
        """True when it has caught up with the others."""
        return self.asked("/healthz") is not None

    def asked(self, path: str) -> Any:
        """What it says, None when it says nothing or that it is not well."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()


class NatsCluster:
    """The nodes, in the installation from now on."""

    def __init__(self, installation: InstallationUnderTest) -> None:
        one = installation.processes["nats"].part
        ports = [free_port() for _ in range(NODES)]
        self._routes = [free_port() for _ in range(NODES)]
        self._ways = {
            (here, there): socket.create_server((LOOPBACK, 0))
            for here, there in itertools.permutations(range(NODES), 2)
        }
        """From one node to another, where a link is to listen."""
        self._links: dict[tuple[int, int], Link] = {}
        self.servers = [f"tls://{address(port)}" for port in ports]
        self._doors: dict[str, JetStreamDoor] = {}
        nodes = []
        for number, port in enumerate(ports):
            name = f"nats-{number + 1}"
            self._doors[name] = JetStreamDoor(free_port())
            part = replace(
                one,
                name=name,
                command=(*one.command[:-1], self._configure(one, name, port, number)),
                port=port,
                door=self._doors[name],
                log=installation.layout.log(name),
            )
            nodes.append(ProcessUnderTest(part))
        self.nodes = [node.part.name for node in nodes]
        installation.put_in_place_of("nats", nodes)

    def link(self, stack: contextlib.ExitStack) -> None:
        """Makes the links, for as long as the stack lives: before the nodes start."""
        for (here, there), listening in self._ways.items():
            link = Link([self._routes[there]], listening=listening)
            self._links[here, there] = stack.enter_context(link)

    def links(self, *names: str) -> list[Link]:
        """Those from and to these nodes."""
        wanted = {self.nodes.index(name) for name in names}
        return [link for ends, link in self._links.items() if wanted.intersection(ends)]

    def _configure(self, one: Part, name: str, port: int, number: int) -> str:
        """The one server's configuration with what a node has besides."""
        file = Path(one.command[-1])
        _comment, _, said = file.read_text().partition("\n")
        config: dict[str, Any] = json.loads(said)
        tls = config["tls"]
        config["server_name"] = name
        config["listen"] = address(port)
        config["http"] = address(self._doors[name].port)
        config["jetstream"]["store_dir"] += f"-{name}"
        # Copies are on other nodes, which need not wait for each other's disks.
        del config["jetstream"]["sync_interval"]
        config["cluster"] = {
            "name": "countersign",
            "listen": address(self._routes[number]),
            "advertise": NOWHERE,
            "tls": {
                **{key: tls[key] for key in ("cert_file", "key_file", "ca_file", "min_version")},
                "verify": True,
            },
            "routes": [
                f"nats://{address(listening.getsockname()[1])}"
                for (here, _), listening in self._ways.items()
                if here == number
            ],
        }
        own = file.with_name(f"{name}.conf")
        write_secret(own, json.dumps(config).encode())
        return str(own)

    def leader(self, stream: str) -> str:
        """The node that decides what a stream holds. Waits while they elect one."""
        deadline = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < deadline:
            for door in self._doors.values():
                found = _leader(door.asked(_STREAMS), stream)
                if found in self.nodes:
                    return found
            time.sleep(LOOK_EVERY_S)
        raise AssertionError(f"no node leads {stream} within {WAIT_S_MAX} s")


def _leader(told: Any, stream: str) -> str:
    """By what one node says of its streams."""
    for account in (told or {}).get("account_details", ()):
        for one in account.get("stream_detail", ()):
            if one["name"] == stream:
                return str(one.get("cluster", {}).get("leader", ""))
    return ""
