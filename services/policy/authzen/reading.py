"""Reads requests of the standard; raises InvalidRequest and nothing else.

Invariants:
- Members that the standard does not know are passed over, as it demands of a decision point. What is
  within `properties` and `context` is the domain's to judge.
- JSON that two readers could understand differently is refused: a name twice, NaN, half a surrogate pair.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from policy.authzen.questions import Action, Entity, Question, Sought
from shared.errors import FieldViolation, InvalidRequest

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]

EVALUATIONS_MAX: Final = 64
"""As many as a batch over the bus."""
RESULTS_MAX: Final = 64
"""Of a page."""
TOKEN_CHARS_MAX: Final = 1024

_MEMBERS: Final = ("subject", "action", "resource", "context")
_IDENTIFYING: Final = {"subject": ("type", "id"), "resource": ("type", "id"), "action": ("name",)}


@dataclass(frozen=True)
class Evaluations:
    """Several questions, each readable or not."""

    semantic: Semantic
    items: Sequence[Mapping[str, Any] | InvalidRequest]
    """With the defaults filled in."""


@dataclass(frozen=True)
class Page:
    """Which part of the results is wanted."""

    token: str = ""
    limit: int = RESULTS_MAX


def invalid(message: str, *violations: tuple[str, str]) -> InvalidRequest:
    """The error, with the fields that broke a rule."""
    return InvalidRequest(
        "INVALID_REQUEST",
        message,
        violations=[FieldViolation(field, why) for field, why in violations],
    )


def parse(body: bytes) -> dict[str, Any]:
    """The body as a JSON object."""
    try:
        document = json.loads(
            body.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number
        )
        canonical(document)
    except (ValueError, RecursionError) as error:
        # Without the parser's own account, which may quote what was sent.
        raise InvalidRequest("REQUEST_UNREADABLE", "the body is not one JSON text") from error
    if not isinstance(document, dict):
        raise InvalidRequest("REQUEST_UNREADABLE", "the body is not a JSON object")
    return document


def canonical(document: object) -> bytes:
    """The same bytes for the same JSON; raises ValueError for what cannot be written in UTF-8."""
    text = json.dumps(
        document, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("utf-8")


def question(tree: Mapping[str, Any], sought: Sought | None = None) -> Question:
    """One question. What is sought needs no id, and has none even if one is given."""
    return Question(
        _entity(tree, "subject", sought),
        _action(tree, sought),
        _entity(tree, "resource", sought),
        _object(tree, "context", "context"),
    )


def evaluations(tree: Mapping[str, Any]) -> Evaluations | None:
    """The questions; None when there is only the one at the top."""
    items = tree.get("evaluations", [])
    options = _object(tree, "options", "options")
    semantic = options.get("evaluations_semantic", "execute_all")
    if semantic not in get_args(Semantic):
        rule = f"must be one of {', '.join(get_args(Semantic))}"
        raise invalid("the semantic is not known", ("options.evaluations_semantic", rule))
    if not isinstance(items, list) or len(items) > EVALUATIONS_MAX:
        rule = f"must be an array of at most {EVALUATIONS_MAX}"
        raise invalid("there is no such array of questions", ("evaluations", rule))
    if not items:
        return None
    for name in _MEMBERS:
        _object(tree, name, name)
    return Evaluations(semantic, [_with_defaults(tree, item) for item in items])


def page(tree: Mapping[str, Any]) -> Page:
    """The page. `next_token`, of the standard's drafts, is taken for `token`."""
    wanted = _object(tree, "page", "page")
    tokens = {wanted[name] for name in ("token", "next_token") if isinstance(wanted.get(name), str)}
    given = [name for name in ("token", "next_token") if name in wanted]
    token = next(iter(tokens), "")
    if len(tokens) > 1 or (given and not tokens) or len(token) > TOKEN_CHARS_MAX:
        raise invalid("the page token is not one of ours", ("page.token", "take it unchanged"))
    limit = wanted.get("limit", RESULTS_MAX)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise invalid("there is no such page", ("page.limit", "must be a whole number from 1"))
    return Page(token, min(limit, RESULTS_MAX))


def _with_defaults(defaults: Mapping[str, Any], item: object) -> Mapping[str, Any] | InvalidRequest:
    if not isinstance(item, dict):
        return invalid("the question is not a JSON object", ("evaluations", "holds objects"))
    filled = {name: defaults[name] for name in _MEMBERS if name in defaults}
    filled.update((name, item[name]) for name in _MEMBERS if name in item)
    for name, identifying in _IDENTIFYING.items():
        own, default = item.get(name), defaults.get(name)
        if isinstance(own, dict) and isinstance(default, dict):
            # Whole members take the place of defaults; only what identifies falls back.
            missing = {key: default[key] for key in identifying if key in default}
            filled[name] = missing | own
    return filled


def _entity(
    tree: Mapping[str, Any], name: Literal["subject", "resource"], sought: Sought | None
) -> Entity:
    entity = _required(tree, name)
    identifier = "" if sought == name else _text(entity, f"{name}.id")
    return Entity(_text(entity, f"{name}.type"), identifier, _properties(entity, name))


def _action(tree: Mapping[str, Any], sought: Sought | None) -> Action:
    if sought == "action":
        return Action("")
    action = _required(tree, "action")
    return Action(_text(action, "action.name"), _properties(action, "action"))


def _properties(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _object(tree, "properties", f"{name}.properties")


def _required(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    if name not in tree:
        raise invalid("the request lacks a field", (name, "is required"))
    return _object(tree, name, name)


def _object(tree: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    value = tree.get(name, {})
    if not isinstance(value, dict):
        raise invalid("a field has the wrong type", (place, "must be a JSON object"))
    return value


def _text(tree: Mapping[str, Any], place: str) -> str:
    value = tree.get(place.rpartition(".")[2])
    if value is None:
        raise invalid("the request lacks a field", (place, "is required"))
    if not isinstance(value, str) or not value:
        raise invalid("a field has the wrong type", (place, "must be a string, and not empty"))
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
