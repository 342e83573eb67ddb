"""The standard's information model: what is asked of a policy domain, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from shared.identity import SpiffeId

Sought = Literal["subject", "resource", "action"]
"""What a search looks for."""


@dataclass(frozen=True)
class Entity:
    """A subject or a resource. The id is empty where it is what is sought."""

    type: str
    id: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """What is to be done. The name is empty where it is what is sought."""

    name: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """May the subject do the action to the resource in this context?"""

    subject: Entity
    action: Action
    resource: Entity
    context: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """A decision."""

    permits: bool
    context: Mapping[str, Any] = field(default_factory=dict)
    """What led to it, as JSON."""
    obligations: Sequence[Mapping[str, Any]] = ()
    """In the form of the draft AuthZEN obligations profile: id, type and properties."""


class Domain(Protocol):
    """What is asked about. Decides; the front reads, counts, pages and writes."""

    @property
    def supported_obligations(self) -> Sequence[str]:
        """The types of obligations that may come with a decision."""

    async def decide(self, asker: SpiffeId, question: Question) -> Answer:
        """The decision. Raises ServiceError for a question that it cannot take: that is no decision."""

    def names(self, asker: SpiffeId, sought: Sought, template: Question) -> Sequence[str]:
        """All that may be sought, sorted, each once: ids of entities of the template's type, or actions.

        Empty when the template names a type or an action that the domain does not have. Raises
        ServiceError when the asker may not seek that.
        """
