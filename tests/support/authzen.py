"""A real AuthZEN port with mutual TLS, and policy domains of tests only: the standard's own scenarios.

Each scenario is a table of facts in tests/data/authzen, which names its source, and rules of ours.
"""

import contextlib
import io
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import cedarpy

from policy.authzen.front import Front
from policy.authzen.port import Bounds, Port, serving
from policy.authzen.questions import Answer, Domain, Question, Sought
from policy.authzen.reading import invalid
from policy.authzen.searches import access
from policy.config import AuthzenSettings
from shared.identity import SpiffeId
from shared.settings import TlsFiles
from support.doors import LAPD, TRUST_DOMAIN, Pki

TABLES: Final = Path(__file__).parents[1] / "data" / "authzen"

TODO_RULES: Final = """
permit (principal, action in [Action::"can_read_user", Action::"can_read_todos"], resource);
permit (principal, action == Action::"can_create_todo", resource)
when { principal.roles.containsAny(["admin", "editor"]) };
permit (principal, action == Action::"can_update_todo", resource)
when { principal.roles.contains("evil_genius") };
permit (principal, action == Action::"can_delete_todo", resource)
when { principal.roles.contains("admin") };
permit (
  principal, action in [Action::"can_update_todo", Action::"can_delete_todo"], resource
)
when { principal.roles.contains("editor") }
when { context.resource has ownerID && context.resource.ownerID == principal.email };
"""
SEARCH_RULES: Final = """
permit (principal, action, resource) when { resource.owner == principal };
permit (principal, action == Action::"view", resource)
when { resource.department == principal.department };
permit (principal, action == Action::"view", resource) when { principal.role == "manager" };
permit (principal, action == Action::"edit", resource)
when { principal.role == "manager" && resource.department == principal.department };
"""
CERTIFICATION_RULES: Final = """
permit (principal, action == Action::"read", resource is record)
when { [user::"alice", user::"bob"].contains(principal) };
permit (principal == user::"alice", action == Action::"write", resource)
unless { resource.status == "archived" }
unless { context.resource has status && context.resource.status == "archived" };
permit (principal, action == Action::"write", resource)
when {
  (principal has role && principal.role == "admin") ||
  (context.subject has role && context.subject.role == "admin")
}
when {
  resource.status == "archived" ||
  (context.resource has status && context.resource.status == "archived")
};
permit (principal == user::"alice", action == Action::"delete", resource)
when { context.action has soft && context.action.soft };
"""


class CedarDomain:
    """A domain of tests: Cedar rules over entities that are all known beforehand."""

    supported_obligations: Sequence[str] = ()

    def __init__(
        self, rules: str, entities: Sequence[Mapping[str, Any]], actions: Sequence[str]
    ) -> None:
        self._policies = cedarpy.PolicySet.from_str(rules)
        self._entities = cedarpy.Entities.from_json_str(json.dumps(entities))
        self._actions = sorted(actions)
        self._ids: dict[str, list[str]] = {}
        for entity in entities:
            self._ids.setdefault(entity["uid"]["type"], []).append(entity["uid"]["id"])

    async def decide(self, asker: SpiffeId, question: Question) -> Answer:
        """What the rules say; nothing that errs permits."""
        for place, entity in (("subject", question.subject), ("resource", question.resource)):
            if entity.type not in self._ids:
                raise invalid("the type is not known", (f"{place}.type", "is not known"))
        told = {
            "subject": dict(question.subject.properties),
            "resource": dict(question.resource.properties),
            "action": dict(question.action.properties),
        }
        result = cedarpy.is_authorized(
            {
                "principal": {"type": question.subject.type, "id": question.subject.id},
                "action": {"type": "Action", "id": question.action.name},
                "resource": {"type": question.resource.type, "id": question.resource.id},
                "context": json.dumps(told),
            },
            self._policies,
            self._entities,
        )
        return Answer(result.decision is cedarpy.Decision.Allow)

    def names(self, asker: SpiffeId, sought: Sought, template: Question) -> Sequence[str]:
        """All of the type that is sought."""
        if sought == "action":
            return self._actions
        entity = template.subject if sought == "subject" else template.resource
        return sorted(self._ids.get(entity.type, ()))


def table(name: str) -> dict[str, Any]:
    """The facts of a scenario."""
    document: dict[str, Any] = json.loads((TABLES / f"{name}.json").read_text())
    return document


def todo() -> CedarDomain:
    """The Todo application."""
    users = [
        _entity("user", pid, email=email, roles=roles)
        for pid, email, roles in table("todo")["users"]
    ]
    actions = ("read_user", "read_todos", "create_todo", "update_todo", "delete_todo")
    todos = [_entity("todo", "todo-1")]
    return CedarDomain(TODO_RULES, users + todos, [f"can_{action}" for action in actions])


def records() -> CedarDomain:
    """The search demonstration."""
    facts = table("search")
    users = [_entity("user", u, role=role, department=d) for u, role, d in facts["users"]]
    kept = [
        _entity("record", r, department=d, owner={"__entity": {"type": "user", "id": owner}})
        for r, d, owner in facts["records"]
    ]
    return CedarDomain(SEARCH_RULES, users + kept, ["view", "edit", "delete"])


def certification() -> CedarDomain:
    """What a decision point must hold to be certified."""
    facts = table("certification")
    users = [_entity("user", name, **properties) for name, properties in facts["users"]]
    kept = [_entity("record", name, status=status) for name, status in facts["records"]]
    return CedarDomain(CERTIFICATION_RULES, users + kept, facts["actions"])


def _entity(kind: str, name: str, **attributes: Any) -> dict[str, Any]:
    return {"uid": {"type": kind, "id": name}, "attrs": attributes, "parents": []}


@dataclass(frozen=True)
class Reply:
    """An answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body of an answer that is JSON."""
        assert self.headers["Content-Type"] == "application/json", self
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The stable reason of a refusal."""
        return self.headers["Countersign-Reason"]


@dataclass
class Enforcement:
    """A policy enforcement point with a certificate."""

    url: str
    session: aiohttp.ClientSession
    context: ssl.SSLContext = field(repr=False)

    async def post(self, path: str, document: object, **headers: str) -> Reply:
        """Asks with a JSON document, or with bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        sent = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.send("POST", path, data=io.BytesIO(body), headers=sent)

    async def evaluation(self, document: object) -> Any:
        """The answer to one question."""
        return (await self.post("/access/v1/evaluation", document)).json

    async def search(self, sought: str, document: object) -> Any:
        """The answer to a search."""
        return (await self.post(f"/access/v1/search/{sought}", document)).json

    async def send(self, method: str, path: str, **options: Any) -> Reply:
        """Any request."""
        url = f"{self.url}{path}"
        async with self.session.request(method, url, ssl=self.context, **options) as answer:
            return Reply(answer.status, dict(answer.headers), await answer.read())


def client_tls(tls: TlsFiles | None, authority: Path) -> ssl.SSLContext:
    """Shows the certificate, or none."""
    context = ssl.create_default_context(cafile=str(authority))
    if tls is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


@contextlib.asynccontextmanager
async def enforcing(url: str, tls: TlsFiles) -> AsyncIterator[Enforcement]:
    """A client of the port at that URL."""
    async with aiohttp.ClientSession() as session:
        yield Enforcement(url, session, client_tls(tls, tls.authority))


@contextlib.asynccontextmanager
async def decision_point(
    domain: Domain,
    pki: Pki,
    agencies: Sequence[str] = (LAPD,),
    port_number: int = 0,
    url: str | None = None,
    bounds: Bounds | None = None,
) -> AsyncIterator[Port]:
    """A domain behind the real port; `url` of what it gives says where."""
    settings = AuthzenSettings(
        address=f"127.0.0.1:{port_number}",
        tls=pki.issue("service", "policy", listens=True),
        url=url,
    )
    port = Port(Front(domain), TRUST_DOMAIN, access(agencies), bounds)
    async with serving(port, settings):
        yield port


@contextlib.asynccontextmanager
async def asked(
    domain: Domain, pki: Pki, kind: Any = "service", name: str = "broker"
) -> AsyncIterator[Enforcement]:
    """A client of a domain, by default the broker."""
    async with (
        decision_point(domain, pki) as port,
        enforcing(port.url, pki.issue(kind, name)) as client,
    ):
        yield client
