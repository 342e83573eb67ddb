"""Which values of a fact the rules cannot tell apart, so that one answer serves them all.

A case number is another in each search, and the time in each millisecond, but rules ask of them only
whether a number was given, or whether a certificate has lapsed.

Invariants:
- Two values are alike only where every mention of the fact compares it, as a whole, with something
  written out in the rule or, for a time, with a day of the registry; and every such comparison comes
  out the same. In doubt each value is like itself only.
- Officers are alike only to rules that do not mention the officer at all; galleries likewise.
- A rule that takes the facts as a whole can compare them with anything, so nothing is alike to it.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from cedarpy import pst

from directive.circumstances import YEAR_AGO
from directive.rules import Rule, walk

_CONTEXT: Final = pst.Var("context")
_TIMES: Final = frozenset({"now", YEAR_AGO})
"""The facts that are times: each search has its own."""
_EQUAL: Final = frozenset({"eq", "not_eq"})
_ORDERED: Final = _EQUAL | {"less", "less_eq", "greater", "greater_eq"}

_Literals: TypeAlias = tuple[frozenset[str], frozenset[datetime]]
"""The texts and the times that one comparison names."""


@dataclass(frozen=True)
class Likeness:
    """How one party's rules tell texts and times apart."""

    texts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Fact to the texts that it is compared with, for facts that are compared with nothing else."""
    instants: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)
    """Time to what it is compared with, sorted, for times that are compared with nothing else."""
    officer: bool = True
    """Whether a rule mentions the officer."""
    gallery: bool = True
    """Whether a rule mentions the gallery."""

    def of_text(self, fact: str, text: str) -> str | None:
        """The same for texts that are alike."""
        named = self.texts.get(fact)
        return text if named is None or text in named else None

    def of_moment(self, fact: str, moment: datetime) -> tuple[int, int] | datetime:
        """The same for moments that are alike."""
        instants = self.instants.get(fact)
        if instants is None:
            return moment
        return bisect_left(instants, moment), bisect_right(instants, moment)


def likeness(rules: Iterable[Rule], days: tuple[datetime, ...]) -> Likeness:
    """How these rules tell texts and times apart, over a registry that knows these times, sorted."""
    uses = reads = 0
    mentions: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    instants: dict[str, set[datetime]] = {fact: set() for fact in _TIMES}
    templates = tuple(rule.template for rule in rules)
    named: set[str] = set()
    for node in walk(templates):
        if isinstance(node, pst.Var):
            named.add(node.name)
            uses += node == _CONTEXT
        elif isinstance(node, pst.HasAttr):
            reads += node.base == _CONTEXT
        elif isinstance(node, pst.GetAttr) and node.base == _CONTEXT:
            reads += 1
            mentions[node.attr] += 1
        elif isinstance(node, pst.BinaryOp) and (found := _comparison(node)) is not None:
            fact, (named_texts, named_instants) = found
            compared[fact] += 1
            texts.setdefault(fact, set()).update(named_texts)
            instants.setdefault(fact, set()).update(named_instants)
    anyone = all(isinstance(template.principal, pst.ScopeAny) for template in templates)
    anywhere = all(isinstance(template.resource, pst.ScopeAny) for template in templates)
    officer, gallery = "principal" in named or not anyone, "resource" in named or not anywhere
    if uses != reads:
        return Likeness(officer=officer, gallery=gallery)
    # Whether a fact was given at all is asked beside its value, and is no mention of the value.
    whole = {fact for fact, times in mentions.items() if compared[fact] == times}
    return Likeness(
        {fact: frozenset(listed) for fact, listed in texts.items() if fact in whole - _TIMES},
        {fact: _sorted(days, instants[fact]) for fact in whole & _TIMES},
        officer,
        gallery,
    )


def _sorted(days: tuple[datetime, ...], more: Collection[datetime]) -> tuple[datetime, ...]:
    """Both in one order. There are as many days as the registry names, and one tuple of them serves all."""
    return tuple(sorted({*days, *more})) if more else days


def _comparison(node: pst.BinaryOp) -> tuple[str, _Literals] | None:
    """The fact that is compared with something known, and with what; None for anything else."""
    for one, other in ((node.left, node.right), (node.right, node.left)):
        if not (isinstance(one, pst.GetAttr) and one.base == _CONTEXT):
            continue
        if one.attr in _TIMES:
            moments = _moments(other) if node.op in _ORDERED else None
            return None if moments is None else (one.attr, (frozenset(), moments))
        named = _texts(node, other) if one is node.right or node.op in _EQUAL else None
        return None if named is None else (one.attr, (named, frozenset()))
    return None


def _texts(node: pst.BinaryOp, other: pst.Expr) -> frozenset[str] | None:
    """The texts written out beside a fact that is only asked to equal them."""
    if node.op in _EQUAL:
        elements: tuple[pst.Expr, ...] = (other,)
    elif node.op == "contains" and isinstance(other, pst.Set):
        elements = other.elements
    else:
        return None
    literals = [element.value for element in elements if isinstance(element, pst.StringLit)]
    return frozenset(literals) if len(literals) == len(elements) else None


def _moments(other: pst.Expr) -> frozenset[datetime] | None:
    """The times written out that the time is compared with: none for a day of the registry."""
    if isinstance(other, pst.BinaryOp) and other.op == "get_tag":
        # Tags are the only times that the registry holds, and all of them are known.
        return None if any(node == _CONTEXT for node in walk(other)) else frozenset()
    if not (isinstance(other, pst.UnaryOp) and other.op == "datetime"):
        return None
    if not isinstance(other.arg, pst.StringLit):
        return None
    moment = instant(other.arg.value)
    return None if moment is None else frozenset({moment})


def instant(text: str) -> datetime | None:
    """A time in one of Cedar's spellings; None when Python cannot read it."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
