"""What a directive must pass before it is loaded. Each guard stands against a way to permit wrongly.

Cedar skips a rule that errs, reads an unknown attribute as "not there", accepts any name for an
entity and keeps annotations without looking at them; in a prohibition each of these is a silent
permit. A directive with a finding is not loaded at all, and nothing is loaded without it.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from directive import conditions, nesting, places
from directive.document import MANIFEST_FILE, Document, manifest_place
from directive.findings import DirectiveRefused, DocumentError, Finding, Place
from directive.places import NOWHERE, RulePlaces
from directive.rules import OBLIGATION, REQUIREMENT, Rule, identified, walk
from directive.vocabulary import NAMESPACE, Vocabulary
from shared.obligations import OBLIGATION_KINDS

RULES_MAX: Final = 1_000
"""Of one directive; each costs some microseconds in every decision."""
ANNOTATION_LENGTH_MAX: Final = 500
FINDINGS_MAX: Final = 200
"""Enough to work on; each is looked for in the text. What comes after is found when these are mended."""

_REQUIRED: Final = ("id", "title", "citation")
_OPTIONAL: Final = ("source_sentence",)
_PLAIN: Final = frozenset({*_REQUIRED, *_OPTIONAL})
_ANNOTATIONS: Final = (
    *_REQUIRED,
    *_OPTIONAL,
    "requirement_1",
    *(f"obligation_{kind}" for kind in OBLIGATION_KINDS),
)
_ARITHMETIC: Final = {
    "add": "+", "sub": "-", "mul": "*", "neg": "- (negation)",
    "offset": "offset()", "duration_since": "durationSince()",
}  # fmt: skip
_CONSTRUCTORS: Final = frozenset({"datetime", "decimal", "duration", "ip"})
_NIBRS: Final = re.compile(r"([0-9]{2}[0-9A-Z])?")


@dataclass(frozen=True)
class KnownNames:
    """What rules may name: the members of each kind of the registry, the officers, and the courses."""

    members: Mapping[str, frozenset[str]]
    """Entity type ("Agency") to its members' names; of officers there are too many, and not everybody's."""
    officers: Mapping[str, str]
    """By name, each one's agency."""
    courses: frozenset[str]
    officers_known: bool = True
    """Whether these are all officers and courses; where some are not known, none is missed."""


def written_against(document: Document, vocabulary: Vocabulary) -> Vocabulary:
    """The version of the vocabulary that its author had; raises DocumentError when it is not on file."""
    written = vocabulary.versioned(document.manifest.vocabulary)
    if written is None:
        raise DocumentError(
            "VOCABULARY_VERSION",
            f"{document.name}/{MANIFEST_FILE}",
            f"written against vocabulary {document.manifest.vocabulary!r}; "
            f"this is {vocabulary.version!r}, with "
            f"{', '.join(vocabulary.earlier) or 'nothing'} before it",
            manifest_place(document.manifest_text, "vocabulary"),
        )
    return written


def check(document: Document, vocabulary: Vocabulary, known: KnownNames | None) -> tuple[Rule, ...]:
    """The rules of a directive that passes every guard; raises DirectiveRefused.

    With None for what is known, the names that it uses are not looked up: it was, when it was handed in.
    """
    written = written_against(document, vocabulary)
    # Read in the words that its author had, and applied in those that searches are told in.
    examination = _Examination(document, written, known)
    rules = examination.rules()
    for rule in rules:
        examination.annotations(rule)
        examination.requirements(rule)
        examination.names(rule)
        examination.operations(rule)
    if not examination.findings:
        # Asked last: the type checker's answers mean something only for well-formed rules.
        examination.empty_conditions(rules, written)
    if written is not vocabulary and not examination.findings:
        examination.types(vocabulary)
        examination.empty_conditions(rules, vocabulary)
    if examination.findings:
        raise DirectiveRefused(examination.findings)
    return tuple(rules)


class _Examination:
    def __init__(
        self, document: Document, vocabulary: Vocabulary, known: KnownNames | None
    ) -> None:
        self._document = document
        self._vocabulary = vocabulary
        self._known = known
        self._places: Sequence[RulePlaces] = ()
        self.findings: list[Finding] = []

    def _find(self, guard: str, rule: Rule, message: str, place: Place | None) -> None:
        self._find_in(guard, rule.id, message, place)

    def _find_in(self, guard: str, label: str, message: str, place: Place | None = None) -> None:
        finding = Finding(guard, self._document.rules_file, label, message, place)
        if finding not in self.findings:
            self.findings.append(finding)
        if len(self.findings) >= FINDINGS_MAX:
            raise DirectiveRefused(self.findings)

    def _where(self, number: int) -> RulePlaces:
        """Where the parts of a rule stand; nowhere when the text was not taken apart as Cedar does."""
        return self._places[number] if self._places else NOWHERE

    def rules(self) -> list[Rule]:
        """Parses and type-checks; the rules under our own identifiers."""
        text = self._document.rules_text
        deep = nesting.too_deep(text)
        if deep is not None:
            # The engine must not see it: it would end the process.
            message = "brackets and signs are nested too deeply here: make several rules of it"
            self._find_in("TOO_DEEP", "", message, deep)
            raise DirectiveRefused(self.findings)
        try:
            parsed = cedarpy.policies_to_pst(text)
        except ValueError as error:
            place = places.parse_error(text, str(error))
            self._find_in("PARSE", "", f"cannot be read: {error}", place)
            raise DirectiveRefused(self.findings) from error
        total = len(parsed.static_policies) + len(parsed.templates)
        found = places.rules(text)
        self._places = found if len(found) == total else ()
        for key, template in parsed.templates.items():
            label = template.annotations.get("id") or "a rule"
            place = self._where(int(key.removeprefix("policy"))).of("?")
            message = "is a template: rules must name whom they are about"
            self._find_in("TEMPLATE", label, message, place)
        if not total:
            self._find_in("NO_RULES", "", "holds no rule, so it would say nothing")
        if len(parsed.static_policies) > RULES_MAX:
            self._find_in("TOO_MANY_RULES", "", f"holds more than {RULES_MAX} rules")
            raise DirectiveRefused(self.findings)
        rules = self._identified(parsed.static_policies)
        self.types(self._vocabulary)
        return rules

    def _identified(self, policies: Mapping[str, pst.Template]) -> list[Rule]:
        rules = identified(policies)
        for rule in rules:
            for name in _REQUIRED:
                if not rule.template.annotations.get(name, "").strip():
                    place = self._where(rule.number).annotation(name)
                    self._find(f"{name.upper()}_MISSING", rule, f"has no @{name}", place)
        counts = Counter(rule.id for rule in rules)
        named: set[str] = set()
        for rule in rules:
            if rule.id in named:
                message = f"is the identifier of {counts[rule.id]} rules"
                place = self._where(rule.number).annotation("id")
                self._find("ID_DUPLICATE", rule, message, place)
            named.add(rule.id)
        return rules

    def types(self, vocabulary: Vocabulary) -> None:
        """Strict validation against a vocabulary: unknown terms, wrong types, unguarded reads."""
        result = cedarpy.validate_policies(self._document.rules_text, vocabulary.schema)
        if result.validation_passed:
            return
        ids = result.id_annotations_by_policy_id
        for error in result.errors:
            label = ids.get(error.policy_id, "") or error.policy_id
            message = str(error.error).removeprefix(f"for policy `{error.policy_id}`").lstrip(":, ")
            place = self._where(int(error.policy_id.removeprefix("policy"))).named_in(message)
            self._find_in("UNKNOWN_TERM", label, f"does not fit the vocabulary: {message}", place)
        if not result.errors:
            self._find_in("UNKNOWN_TERM", "", "does not fit the vocabulary")

    def annotations(self, rule: Rule) -> None:
        """Known annotations only, and the party's own prefix."""
        where = self._where(rule.number)
        prefix = self._document.manifest.rule_prefix
        if not re.fullmatch(re.escape(prefix) + r"[A-Z0-9][A-Z0-9.-]{0,30}", rule.id):
            message = f"does not begin with this party's prefix {prefix!r}"
            self._find("ID_PREFIX", rule, message, where.annotation("id"))
        for key, value in rule.template.annotations.items():
            place = where.annotation(key)
            duty = OBLIGATION.fullmatch(key)
            if duty and duty[1] not in OBLIGATION_KINDS:
                kinds = ", ".join(sorted(OBLIGATION_KINDS))
                message = f"@{key}: the known duties are {kinds}"
                self._find("OBLIGATION_UNKNOWN", rule, message, place)
            elif not duty and key not in _PLAIN and not REQUIREMENT.fullmatch(key):
                near = _nearest(key, _ANNOTATIONS)
                self._find("ANNOTATION_UNKNOWN", rule, f"@{key} means nothing here{near}", place)
            if len(value) > ANNOTATION_LENGTH_MAX or not value.isprintable():
                message = (
                    f"@{key} must be one printable line of at most {ANNOTATION_LENGTH_MAX} letters"
                )
                self._find("ANNOTATION_TEXT", rule, message, place)

    def requirements(self, rule: Rule) -> None:
        """A permit says in words what its head and each of its conditions require; a forbid nothing."""
        expected: set[int] = set()
        if rule.permits:
            expected.update(range(1, len(rule.template.clauses) + 1))
            if rule.has_conditional_head:
                expected.add(0)
        given, where = rule.requirements, self._where(rule.number)
        for number in sorted(expected - given.keys()):
            what = f"condition {number}" if number else "the head"
            message = f"has no @requirement_{number} for {what}"
            self._find("REQUIREMENT_MISSING", rule, message, where.clause(number))
        for number in sorted(given.keys() - expected):
            message = f"@requirement_{number} belongs to nothing"
            place = where.annotation(f"requirement_{number}")
            self._find("REQUIREMENT_WITHOUT_CLAUSE", rule, message, place)
        for number, words in given.items():
            if not words.strip():
                place = where.annotation(f"requirement_{number}")
                self._find("REQUIREMENT_MISSING", rule, f"@requirement_{number} is empty", place)

    def names(self, rule: Rule) -> None:
        """Every agency, officer, list, system, gallery, jurisdiction and course exists."""
        where = self._where(rule.number)
        for uid in sorted(pst.entity_uids(rule.template), key=str):
            kind = uid.type.basename
            if uid.type.namespace != (NAMESPACE,) or kind == "Action":
                continue  # The type checker has seen to these.
            if kind == "Officer":
                message = self._officer(uid.id)
            else:
                known: Iterable[str] | None = self._vocabulary.closed_lists.get(kind)
                where_named = "registry" if known is None else "vocabulary"
                if known is None and self._known is not None:
                    known = self._known.members.get(kind, ())
                missing = known is not None and uid.id not in known
                message = (
                    f"is not in the {where_named}{_nearest(uid.id, known or ())}" if missing else ""
                )
            if message:
                place = where.of(*_words(str(uid)))
                self._find("UNKNOWN_NAME", rule, f"{uid} {message}", place)
        for course in _courses(rule.template):
            if not isinstance(course, pst.StringLit):
                place = where.of("hasTag")
                self._find("COURSE_NOT_LITERAL", rule, "a course must be written out", place)
            elif (
                self._known is not None
                and self._known.officers_known
                and course.value not in self._known.courses
            ):
                near = _nearest(course.value, self._known.courses)
                message = f'no officer holds a certificate "{course.value}"{near}'
                self._find("UNKNOWN_NAME", rule, message, where.of(f'"{course.value}"'))
        for code in _nibrs_literals(rule.template):
            if not _NIBRS.fullmatch(code):
                message = f'"{code}" is not an NIBRS offence code'
                self._find("OFFENCE_CODE", rule, message, where.of(f'"{code}"'))

    def _officer(self, name: str) -> str:
        """What is wrong with an officer's name; the same of another agency's and of nobody's.

        Who works for another agency is nobody's to find out by naming them, nor by names that are near.
        """
        party = self._document.manifest.party
        known = self._known
        if known is None or not known.officers_known or known.officers.get(name) == party:
            return ""
        return f"is no officer of {party}: rules name officers of their own party alone"

    def operations(self, rule: Rule) -> None:
        """Nothing that can fail while a search is decided: a rule that errs is skipped."""
        where = self._where(rule.number)
        for node in walk(rule.template.clauses):
            if isinstance(node, pst.BinaryOp | pst.UnaryOp) and node.op in _ARITHMETIC:
                sign = _ARITHMETIC[node.op]
                message = f"uses {sign}, which can overflow while a search is decided"
                self._find("ARITHMETIC", rule, message, where.of(sign.rstrip("()").split(" ")[0]))
            if (
                isinstance(node, pst.UnaryOp)
                and node.op in _CONSTRUCTORS
                and not isinstance(node.arg, pst.StringLit)
            ):
                message = f"{node.op}() needs a written-out value"
                self._find("NOT_LITERAL", rule, message, where.of(node.op))

    def empty_conditions(self, rules: Sequence[Rule], vocabulary: Vocabulary) -> None:
        """Conditions that never or always hold."""
        messages = {
            "undeclared": ("HAS_UNDECLARED", "asks for a fact that the vocabulary does not have"),
            "required": ("HAS_REQUIRED", "asks whether a fact is there that always is"),
            "never": ("NEVER_TRUE", "can never be true"),
            "always": ("ALWAYS_TRUE", "is always true"),
        }
        numbers = {rule.id: rule.number for rule in rules}
        for suspect in conditions.suspects(rules, vocabulary):
            guard, message = messages[suspect.kind]
            place = self._where(numbers[suspect.rule]).of(*_words(suspect.text))
            self._find_in(guard, suspect.rule, f"`{suspect.text}` {message}", place)


def _words(text: str) -> list[str]:
    return [token.text for token in places.tokens(text)]


def _nearest(name: str, known: Iterable[str]) -> str:
    """What was probably meant."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _courses(template: pst.Template) -> Iterable[pst.Expr]:
    for node in walk(template.clauses):
        if isinstance(node, pst.BinaryOp) and node.op in ("has_tag", "get_tag"):
            yield node.right


def _nibrs_literals(template: pst.Template) -> Iterable[str]:
    """Texts that are compared with the offence code, alone or in a list."""
    for node in walk(template.clauses):
        if not isinstance(node, pst.BinaryOp):
            continue
        sides = (node.left, node.right)
        if not any(isinstance(side, pst.GetAttr) and side.attr == "nibrsCode" for side in sides):
            continue
        for side in sides:
            elements = side.elements if isinstance(side, pst.Set) else (side,)
            yield from (e.value for e in elements if isinstance(e, pst.StringLit))
