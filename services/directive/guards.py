"""What a directive must pass before it is loaded. Each guard stands against a way to permit wrongly.

Cedar skips a rule that errs, reads an unknown attribute as "not there", accepts any name for an
entity and keeps annotations without looking at them; in a prohibition each of these is a silent
permit. A directive with a finding is not loaded at all, and nothing is loaded without it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from directive import conditions
from directive.document import MANIFEST_FILE, Document
from directive.rules import OBLIGATION, OBLIGATION_KINDS, REQUIREMENT, Rule, identified, walk
from directive.vocabulary import NAMESPACE, Vocabulary

RULES_MAX: Final = 1_000
"""Of one directive; each costs some microseconds in every decision."""
ANNOTATION_LENGTH_MAX: Final = 500

_REQUIRED: Final = ("id", "title", "citation")
_ARITHMETIC: Final = {
    "add": "+", "sub": "-", "mul": "*", "neg": "- (negation)",
    "offset": "offset()", "duration_since": "durationSince()",
}  # fmt: skip
_CONSTRUCTORS: Final = frozenset({"datetime", "decimal", "duration", "ip"})
_NIBRS: Final = re.compile(r"([0-9]{2}[0-9A-Z])?")


@dataclass(frozen=True)
class Finding:
    """Why a directive is not loaded."""

    guard: str
    """Stable, in capitals: "ID_MISSING"."""
    file: str
    rule: str
    """The rule's identifier, or its place ("rule 3") while it has none; empty for the whole file."""
    message: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.rule}" if self.rule else self.file
        return f"{where}: {self.message} [{self.guard}]"


class DirectiveRefused(Exception):
    """A directive is not loaded; it says everything that was found."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = tuple(findings)


@dataclass(frozen=True)
class KnownNames:
    """What rules may name: the members of each kind of the registry, and the courses."""

    members: Mapping[str, frozenset[str]]
    """Entity type ("Agency") to its members' names."""
    courses: frozenset[str]


def check(document: Document, vocabulary: Vocabulary, known: KnownNames) -> tuple[Rule, ...]:
    """The rules of a directive that passes every guard; raises DirectiveRefused."""
    if document.manifest.vocabulary != vocabulary.version:
        raise DirectiveRefused(
            [
                Finding(
                    "VOCABULARY_VERSION",
                    f"{document.name}/{MANIFEST_FILE}",
                    "",
                    f"written against vocabulary {document.manifest.vocabulary!r}; "
                    f"this is {vocabulary.version!r}",
                )
            ]
        )
    examination = _Examination(document, vocabulary, known)
    rules = examination.rules()
    for rule in rules:
        examination.annotations(rule)
        examination.requirements(rule)
        examination.names(rule)
        examination.operations(rule)
    if not examination.findings:
        # Asked last: the type checker's answers mean something only for well-formed rules.
        examination.empty_conditions(rules)
    if examination.findings:
        raise DirectiveRefused(examination.findings)
    return tuple(rules)


class _Examination:
    def __init__(self, document: Document, vocabulary: Vocabulary, known: KnownNames) -> None:
        self._document = document
        self._vocabulary = vocabulary
        self._known = known
        self.findings: list[Finding] = []

    def _find(self, guard: str, rule: str, message: str) -> None:
        self.findings.append(Finding(guard, self._document.rules_file, rule, message))

    def rules(self) -> list[Rule]:
        """Parses and type-checks; the rules under our own identifiers."""
        text = self._document.rules_text
        try:
            parsed = cedarpy.policies_to_pst(text)
        except ValueError as error:
            raise DirectiveRefused(
                [Finding("PARSE", self._document.rules_file, "", f"cannot be read: {error}")]
            ) from error
        for template in parsed.templates.values():
            label = template.annotations.get("id") or "a rule"
            self._find("TEMPLATE", label, "is a template: rules must name whom they are about")
        if not parsed.static_policies and not parsed.templates:
            self._find("NO_RULES", "", "holds no rule, so it would say nothing")
        if len(parsed.static_policies) > RULES_MAX:
            self._find("TOO_MANY_RULES", "", f"holds more than {RULES_MAX} rules")
            raise DirectiveRefused(self.findings)
        rules = self._identified(parsed.static_policies)
        self._types(text)
        return rules

    def _identified(self, policies: Mapping[str, pst.Template]) -> list[Rule]:
        rules = identified(policies)
        for rule in rules:
            for name in _REQUIRED:
                if not rule.template.annotations.get(name):
                    self._find(f"{name.upper()}_MISSING", rule.id, f"has no @{name}")
        for label, count in Counter(rule.id for rule in rules).items():
            if count > 1:
                self._find("ID_DUPLICATE", label, f"is the identifier of {count} rules")
        return rules

    def _types(self, text: str) -> None:
        """Strict validation against the vocabulary: unknown terms, wrong types, unguarded reads."""
        result = cedarpy.validate_policies(text, self._vocabulary.schema)
        if result.validation_passed:
            return
        ids = result.id_annotations_by_policy_id
        for error in result.errors:
            label = ids.get(error.policy_id, "") or error.policy_id
            message = str(error.error).removeprefix(f"for policy `{error.policy_id}`").lstrip(":, ")
            self._find("UNKNOWN_TERM", label, f"does not fit the vocabulary: {message}")
        if not result.errors:
            self._find("UNKNOWN_TERM", "", "does not fit the vocabulary")

    def annotations(self, rule: Rule) -> None:
        """Known annotations only, and the party's own prefix."""
        prefix = self._document.manifest.rule_prefix
        if not re.fullmatch(re.escape(prefix) + r"[A-Z0-9][A-Z0-9.-]{0,30}", rule.id):
            self._find("ID_PREFIX", rule.id, f"does not begin with this party's prefix {prefix!r}")
        for key, value in rule.template.annotations.items():
            duty = OBLIGATION.fullmatch(key)
            if duty and duty[1] not in OBLIGATION_KINDS:
                kinds = ", ".join(sorted(OBLIGATION_KINDS))
                self._find("OBLIGATION_UNKNOWN", rule.id, f"@{key}: the known duties are {kinds}")
            elif not duty and key not in _REQUIRED and not REQUIREMENT.fullmatch(key):
                self._find("ANNOTATION_UNKNOWN", rule.id, f"@{key} means nothing here")
            if len(value) > ANNOTATION_LENGTH_MAX or not value.isprintable():
                self._find(
                    "ANNOTATION_TEXT",
                    rule.id,
                    f"@{key} must be one printable line of at most {ANNOTATION_LENGTH_MAX} letters",
                )

    def requirements(self, rule: Rule) -> None:
        """A permit says in words what its head and each of its conditions require; a forbid nothing."""
        expected: set[int] = set()
        if rule.permits:
            expected.update(range(1, len(rule.template.clauses) + 1))
            if rule.has_conditional_head:
                expected.add(0)
        given = rule.requirements
        for number in sorted(expected - given.keys()):
            what = f"condition {number}" if number else "the head"
            self._find("REQUIREMENT_MISSING", rule.id, f"has no @requirement_{number} for {what}")
        for number in sorted(given.keys() - expected):
            self._find(
                "REQUIREMENT_WITHOUT_CLAUSE", rule.id, f"@requirement_{number} belongs to nothing"
            )
        for number, words in given.items():
            if not words:
                self._find("REQUIREMENT_MISSING", rule.id, f"@requirement_{number} is empty")

    def names(self, rule: Rule) -> None:
        """Every agency, officer, list, system, gallery, jurisdiction and course exists."""
        for uid in sorted(pst.entity_uids(rule.template), key=str):
            kind = uid.type.basename
            if uid.type.namespace != (NAMESPACE,) or kind == "Action":
                continue  # The type checker has seen to these.
            known = self._vocabulary.closed_lists.get(kind, self._known.members.get(kind, ()))
            if uid.id not in known:
                self._find("UNKNOWN_NAME", rule.id, f"{uid} is not in the registry")
        for course in _courses(rule.template):
            if not isinstance(course, pst.StringLit):
                self._find("COURSE_NOT_LITERAL", rule.id, "a course must be written out")
            elif course.value not in self._known.courses:
                self._find(
                    "UNKNOWN_NAME", rule.id, f'no officer holds a certificate "{course.value}"'
                )
        for code in _nibrs_literals(rule.template):
            if not _NIBRS.fullmatch(code):
                self._find("OFFENCE_CODE", rule.id, f'"{code}" is not an NIBRS offence code')

    def operations(self, rule: Rule) -> None:
        """Nothing that can fail while a search is decided: a rule that errs is skipped."""
        for node in walk(rule.template.clauses):
            if isinstance(node, pst.BinaryOp | pst.UnaryOp) and node.op in _ARITHMETIC:
                self._find(
                    "ARITHMETIC",
                    rule.id,
                    f"uses {_ARITHMETIC[node.op]}, which can overflow while a search is decided",
                )
            if (
                isinstance(node, pst.UnaryOp)
                and node.op in _CONSTRUCTORS
                and not isinstance(node.arg, pst.StringLit)
            ):
                self._find("NOT_LITERAL", rule.id, f"{node.op}() needs a written-out value")

    def empty_conditions(self, rules: Sequence[Rule]) -> None:
        """Conditions that never or always hold."""
        messages = {
            "undeclared": ("HAS_UNDECLARED", "asks for a fact that the vocabulary does not have"),
            "required": ("HAS_REQUIRED", "asks whether a fact is there that always is"),
            "never": ("NEVER_TRUE", "can never be true"),
            "always": ("ALWAYS_TRUE", "is always true"),
        }
        for suspect in conditions.suspects(rules, self._vocabulary):
            guard, message = messages[suspect.kind]
            self._find(guard, suspect.rule, f"`{suspect.text}` {message}")


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
