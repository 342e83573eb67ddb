"""Rules as Python functions, some fifty times as quick as the engine: a sieve for what has to be asked of it.

Never decides. `directive.sieve` takes a verdict from the engine for each set of rules that fires, and the
engine confirms what a replay finds.

Invariants:
- What is compiled means what Cedar means by it: values of different types are never equal, conditions and
  operands of the wrong type are errors, an error ends its rule, `&&` and `||` look no further than they must.
- What is not known here is refused with NotCompiled when compiling, or Unsure when running, and the engine is
  asked instead. Nothing is guessed.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from cedarpy import pst

from directive.cedar_values import (
    Asked,
    Entities,
    Entity,
    NotCompiled,
    Uid,
    Unsure,
    Value,
    element,
    moment,
)


class _Failed(Exception):
    """Cedar would report an error."""


class Fired(NamedTuple):
    """Which rules of a set fired, and which ended in an error: a bit for each, in the order of the set."""

    fired: int
    failed: int


_Run: TypeAlias = Callable[[Asked], Any]

_EMPTY: Final = Entity()


class CompiledRules:
    """A set of rules about one action, over the entities of one registry."""

    def __init__(self, rules: Iterable[pst.Template], action: Uid, entities: Entities) -> None:
        """Raises NotCompiled."""
        compiler = _Compiler(action, entities)
        self._rules = tuple((1 << n, compiler.rule(rule)) for n, rule in enumerate(rules))

    def run(self, asked: Asked) -> Fired:
        """Which of them fire. Raises Unsure."""
        fired = failed = 0
        for bit, rule in self._rules:
            try:
                if rule(asked):
                    fired |= bit
            except (KeyError, _Failed):
                failed |= bit
        return Fired(fired, failed)


def literal_uid(uid: pst.EntityUid) -> Uid:
    """The entity that a rule names."""
    return Uid(str(uid.type), uid.id)


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise _Failed
    return value


def _members(value: Any) -> frozenset[Any]:
    if type(value) is not frozenset:
        raise _Failed
    return value


def _entity(value: Any) -> Uid:
    if type(value) is not Uid:
        raise _Failed
    return value


def _ordered(left: Any, right: Any) -> None:
    if type(left) is not type(right) or type(left) not in (int, datetime):
        raise _Failed


class _Compiler:
    """Turns the nodes of the typed tree into functions of a question."""

    def __init__(self, action: Uid, entities: Entities) -> None:
        self._action = action
        self._entities = entities

    def rule(self, rule: pst.Template) -> _Run:
        """Whether the rule fires."""
        action = self._action
        about = self._scope(rule.action, lambda asked: action)
        nobody: Any = None
        if not all(part(nobody) for part in about):
            return lambda asked: False
        parts = [
            *self._scope(rule.principal, lambda asked: asked.principal),
            *self._scope(rule.resource, lambda asked: asked.resource),
        ]
        for clause in rule.clauses:
            condition = self._truth_of(clause.expr)
            parts.append(condition if isinstance(clause, pst.When) else _negated(condition))
        if not parts:
            return lambda asked: True
        if len(parts) == 1:
            return parts[0]
        together = tuple(parts)

        def fires(asked: Asked) -> bool:
            for part in together:  # noqa: SIM110  # a generator would cost more than it runs
                if not part(asked):
                    return False
            return True

        return fires

    def _scope(self, constraint: object, variable: _Run) -> list[_Run]:
        match constraint:
            case pst.ScopeAny():
                return []
            case pst.ScopeEq(pst.EntityUid() as uid) | pst.ActionEq(uid):
                named = literal_uid(uid)
                return [lambda asked: variable(asked) == named]
            case pst.ScopeIn(pst.EntityUid() as uid):
                return [self._is_below(variable, frozenset({literal_uid(uid)}))]
            case pst.ActionIn(uids):
                return [self._is_below(variable, frozenset(map(literal_uid, uids)))]
            case pst.ScopeIs(kind):
                wanted = str(kind)
                return [lambda asked: variable(asked).kind == wanted]
            case pst.ScopeIsIn(kind, pst.EntityUid() as uid):
                wanted = str(kind)
                below = self._is_below(variable, frozenset({literal_uid(uid)}))
                return [lambda asked: variable(asked).kind == wanted, below]
        raise NotCompiled(f"a head with {type(constraint).__name__}")

    def _is_below(self, variable: _Run, named: frozenset[Uid]) -> _Run:
        entities = self._entities

        def below(asked: Asked) -> bool:
            uid = variable(asked)
            return uid in named or not named.isdisjoint(entities.get(uid, _EMPTY).ancestors)

        return below

    def _truth_of(self, node: pst.Expr) -> _Run:
        """A condition; not a truth value is an error."""
        run = self._run(node)
        return run if _is_truth(node) else lambda asked: _truth(run(asked))

    def _run(self, node: pst.Expr) -> _Run:
        match node:
            case pst.BoolLit(value) | pst.LongLit(value) | pst.StringLit(value):
                return lambda asked: value
            case pst.EntityLit(uid):
                named = literal_uid(uid)
                return lambda asked: named
            case pst.Var("principal"):
                return lambda asked: asked.principal
            case pst.Var("action"):
                action = self._action
                return lambda asked: action
            case pst.Var("resource"):
                return lambda asked: asked.resource
            case pst.GetAttr(base, name):
                return self._attribute(base, name)
            case pst.HasAttr(base, names):
                return self._has(base, names)
            case pst.UnaryOp(op, argument):
                return self._unary(op, argument)
            case pst.BinaryOp(op, left, right):
                return self._binary(op, left, right)
            case pst.IfThenElse(condition, then, otherwise):
                return self._choice(condition, then, otherwise)
            case pst.Set(elements):
                return self._set(elements)
            case pst.Like(base, pattern):
                return self._like(base, pattern)
            case pst.Is(base, kind, within):
                return self._is(base, str(kind), within)
        raise NotCompiled(type(node).__name__)

    def _attribute(self, base: pst.Expr, name: str) -> _Run:
        if base == pst.Var("context"):
            return lambda asked: asked.context[name]
        of, entities = self._run(base), self._entities
        return lambda asked: entities[of(asked)].attributes[name]

    def _has(self, base: pst.Expr, names: tuple[str, ...]) -> _Run:
        name, *further = names
        if further:
            rest = pst.HasAttr(pst.GetAttr(base, name), tuple(further))
            return self._run(pst.BinaryOp("and", pst.HasAttr(base, (name,)), rest))
        if base == pst.Var("context"):
            return lambda asked: name in asked.context
        of, entities = self._run(base), self._entities
        return lambda asked: name in entities.get(_entity(of(asked)), _EMPTY).attributes

    def _unary(self, op: str, argument: pst.Expr) -> _Run:
        if op == "not":
            return _negated(self._truth_of(argument))
        if op == "is_empty":
            members = self._run(argument)
            return lambda asked: not _members(members(asked))
        if op == "datetime" and isinstance(argument, pst.StringLit):
            read = moment(argument.value)
            if read is not None:
                return lambda asked: read
        raise NotCompiled(op)

    def _choice(self, condition: pst.Expr, then: pst.Expr, otherwise: pst.Expr) -> _Run:
        chosen, one, other = self._truth_of(condition), self._run(then), self._run(otherwise)
        return lambda asked: one(asked) if chosen(asked) else other(asked)

    def _set(self, elements: tuple[pst.Expr, ...]) -> _Run:
        if all(isinstance(one, pst.EntityLit | pst.StringLit | pst.LongLit) for one in elements):
            nobody: Any = None
            written = frozenset(self._run(one)(nobody) for one in elements)
            return lambda asked: written
        runs = tuple(self._run(one) for one in elements)
        return lambda asked: frozenset(element(run(asked), Unsure) for run in runs)

    def _like(self, base: pst.Expr, pattern: tuple[pst.PatternElem, ...]) -> _Run:
        text = self._run(base)
        parts = (".*" if isinstance(p, pst.Wildcard) else re.escape(p.value) for p in pattern)
        matches = re.compile("".join(parts), re.DOTALL).fullmatch

        def like(asked: Asked) -> bool:
            value = text(asked)
            if type(value) is not str:
                raise _Failed
            return matches(value) is not None

        return like

    def _is(self, base: pst.Expr, kind: str, within: pst.Expr | None) -> _Run:
        of = self._run(base)
        if within is None:
            return lambda asked: _entity(of(asked)).kind == kind
        below = self._in(base, within)
        return lambda asked: _entity(of(asked)).kind == kind and below(asked)

    def _binary(self, op: str, left: pst.Expr, right: pst.Expr) -> _Run:
        if op in ("and", "or"):
            return _joined(op, self._truth_of(left), self._truth_of(right))
        if op == "in":
            return self._in(left, right)
        if op in ("has_tag", "get_tag"):
            return self._tag(op, left, right)
        make = _OF_TWO.get(op)
        if make is None:
            raise NotCompiled(op)
        return make(self._run(left), self._run(right))

    def _in(self, left: pst.Expr, right: pst.Expr) -> _Run:
        one, other, entities = self._run(left), self._run(right), self._entities

        def within(asked: Asked) -> bool:
            uid, named = _entity(one(asked)), other(asked)
            if type(named) is Uid:
                return uid == named or named in entities.get(uid, _EMPTY).ancestors
            members = _members(named)
            for member in members:
                _entity(member)
            return uid in members or not members.isdisjoint(entities.get(uid, _EMPTY).ancestors)

        return within

    def _tag(self, op: str, left: pst.Expr, right: pst.Expr) -> _Run:
        one, other, entities = self._run(left), self._run(right), self._entities

        def looked_up(asked: Asked) -> tuple[Uid, str]:
            uid, name = _entity(one(asked)), other(asked)
            if type(name) is not str:
                raise _Failed
            return uid, name

        def has(asked: Asked) -> bool:
            uid, name = looked_up(asked)
            return name in entities.get(uid, _EMPTY).tags

        def get(asked: Asked) -> Value:
            uid, name = looked_up(asked)
            return entities[uid].tags[name]

        return has if op == "has_tag" else get


def _is_truth(node: pst.Expr) -> bool:
    """Whether it is a truth value whenever it is a value at all."""
    match node:
        case pst.BoolLit() | pst.HasAttr() | pst.Like() | pst.Is():
            return True
        case pst.UnaryOp(op, _):
            return op in ("not", "is_empty")
        case pst.BinaryOp(op, _, _):
            return op in _OF_TWO or op in ("and", "or", "in", "has_tag")
        case pst.IfThenElse(_, then, otherwise):
            return _is_truth(then) and _is_truth(otherwise)
    return False


def _negated(condition: _Run) -> _Run:
    return lambda asked: not condition(asked)


def _joined(op: str, one: _Run, other: _Run) -> _Run:
    if op == "and":
        return lambda asked: one(asked) and other(asked)
    return lambda asked: one(asked) or other(asked)


def _equal(one: _Run, other: _Run) -> _Run:
    def equal(asked: Asked) -> bool:
        left, right = one(asked), other(asked)
        return left == right and type(left) is type(right)

    return equal


def _compared(test: Callable[[Any, Any], bool]) -> Callable[[_Run, _Run], _Run]:
    def make(one: _Run, other: _Run) -> _Run:
        def compare(asked: Asked) -> bool:
            left, right = one(asked), other(asked)
            _ordered(left, right)
            return test(left, right)

        return compare

    return make


def _contains(one: _Run, other: _Run) -> _Run:
    def contains(asked: Asked) -> bool:
        members, value = _members(one(asked)), other(asked)
        return value in members and type(value) is not bool

    return contains


def _of_sets(
    test: Callable[[frozenset[Any], frozenset[Any]], bool],
) -> Callable[[_Run, _Run], _Run]:
    return lambda one, other: lambda asked: test(_members(one(asked)), _members(other(asked)))


_OF_TWO: Final[Mapping[str, Callable[[_Run, _Run], _Run]]] = {
    "eq": _equal,
    "not_eq": lambda one, other: _negated(_equal(one, other)),
    "less": _compared(lambda left, right: left < right),
    "less_eq": _compared(lambda left, right: left <= right),
    "greater": _compared(lambda left, right: left > right),
    "greater_eq": _compared(lambda left, right: left >= right),
    "contains": _contains,
    "contains_all": _of_sets(lambda left, right: left >= right),
    "contains_any": _of_sets(lambda left, right: not left.isdisjoint(right)),
}
