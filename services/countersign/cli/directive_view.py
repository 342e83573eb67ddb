"""Directives as a department's lawyer reads them: each rule beside where it is written."""

from collections.abc import Iterable
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.padding import Padding

from countersign.cli.escaping import escape
from countersign.cli.output import cells, table
from countersign.policy.v1.policy_pb2 import Directive, GetDirectiveResponse
from directive import document
from directive.difference import Change, Difference, VerdictChange
from directive.document import Document
from directive.findings import DocumentError
from directive.review import Review
from directive.rules import Rule, read_rules


def print_list(console: Console, directives: Iterable[Directive]) -> None:
    """One line for each directive."""
    directives = list(directives)
    if not directives:
        console.print("No directives.")
        return
    rows = table(
        *("name", "party", "in force", "from", "until", "rules", "title"),
        text={"title"},
        below={"title": "name", "until": "from"},
    )
    for one in directives:
        rows.add_row(
            *cells(
                one.name,
                one.party,
                "yes" if one.in_force else "no",
                _day(one.effective_from),
                _day(one.ends) if one.HasField("ends") else "-",
                len(one.rules),
                one.title,
            )
        )
    console.print(rows)


def print_directive(console: Console, response: GetDirectiveResponse) -> None:
    """Source and rules, as far as this version can read them; the digest is checked here."""
    one = response.directive
    console.print(f"[bold]{escape(one.title)}[/]")
    state = "in force" if one.in_force else "not in force"
    facts = {
        "name": one.name,
        "party": one.party,
        "legal effect": f"{effect(one)} ({state})",
        "source": one.source,
    }
    facts |= _on_record(one)
    try:
        text = document.parse(one.name, response.manifest.encode(), response.rules.encode())
        rules = read_rules(text.rules_text)
    except (DocumentError, ValueError) as error:
        text, rules = None, []
        facts["text"] = f"cannot be read here ({error}); see --rules"
    if text is not None:
        facts["author"] = text.manifest.author
        if text.manifest.caution:
            facts["caution"] = text.manifest.caution
    facts["SHA-256"] = f"{one.sha256.hex()} ({_digest_verdict(one, text)})"
    for name, value in facts.items():
        console.print(f"  {name}: {escape(value)}")
    for rule in rules:
        _print_rule(console, rule)


def effect(one: Directive) -> str:
    """From and until when it has legal effect."""
    begins = _day(one.effective_from)
    if not one.HasField("ends"):
        return f"from {begins}"
    ends = _day(one.ends)
    if ends == begins:
        # It may have had some for an hour: by it was decided from when it was received until it ended.
        return f"none from {ends} on, which was its first day"
    if ends < begins:
        return f"none from {ends} on, and its first day was to be {begins}"
    return f"from {begins}, until {ends}"


def _on_record(one: Directive) -> dict[str, str]:
    """Where it stands in the ledger; nothing for directives that are files."""
    if not one.HasField("published_index"):
        return {}
    received = one.received_at.ToDatetime(UTC)
    facts = {"on record": f"ledger entry {one.published_index}, {received:%Y-%m-%d %H:%M:%S} UTC"}
    if one.replaced_by:
        facts["replaced by"] = one.replaced_by
    if one.HasField("withdrawn_index"):
        facts["withdrawn"] = f"ledger entry {one.withdrawn_index}"
    return facts


def _digest_verdict(one: Directive, text: Document | None) -> str:
    if text is None:
        return "not checked"
    return "of the text shown" if text.sha256 == one.sha256 else "NOT OF THE TEXT SHOWN"


def _print_rule(console: Console, rule: Rule) -> None:
    effect = "[bold green]permits[/]" if rule.permits else "[bold red]forbids[/]"
    console.print(f"\n[bold]{escape(rule.id)}[/] {effect}: {escape(rule.title)}")
    lines = [f"Written in: {rule.citation}"]
    if rule.requirements:
        lines.append("Requires:")
        lines += [f"  {number}. {words}" for number, words in sorted(rule.requirements.items())]
    lines += [f"Duty: {kind} {parameters}" for kind, parameters in rule.obligations]
    for line in lines:
        indent = len(line) - len(line.lstrip()) + 2
        console.print(Padding(escape(line.lstrip()), (0, 0, 0, indent)))


def print_review(console: Console, review: Review) -> None:
    """What came of each case, and what was found besides."""
    console.print(f"[bold]{escape(review.name)}[/]")
    for result in review.cases:
        mark = "[bold red]FAILS[/]" if result.problems else "[green]holds[/]"
        console.print(f"  {mark} {escape(result.case.label)}")
    if any(result.problems for result in review.cases):
        console.print("  changes of its rules are tried when every case holds")
    if review.mutants:
        noticed = review.mutants - len(review.survivors)
        console.print(f"  {noticed} of {review.mutants} changes of its rules are noticed by a case")
    for change in review.changes:
        for line in _otherwise(change):
            console.print(f"  {line}", soft_wrap=True)
    for finding in review.findings:
        # Whole on one line, so that an editor can jump to the place.
        console.print(f"  [bold red]refused[/] {escape(str(finding))}", soft_wrap=True)


def print_difference(console: Console, found: Difference) -> None:
    """What is said otherwise, and what is decided otherwise."""
    lines = [f"{one.what}: {_from_to(one)}" for one in found.manifest]
    lines += [f"[green]+ {escape(rule.id)}[/] {escape(rule.title)}" for rule in found.added]
    lines += [f"[red]- {escape(rule.id)}[/] {escape(rule.title)}" for rule in found.removed]
    for changed in found.changed:
        lines.append(f"[yellow]~ {escape(changed.id)}[/]")
        lines += [f"    {one.what}: {_from_to(one)}" for one in changed.changes]
    for verdict in found.verdicts:
        lines += _otherwise(verdict)
    for line in lines:
        console.print(line, soft_wrap=True)
    console.print(
        f"{len(found.added)} rule(s) added, {len(found.removed)} removed, {len(found.changed)} changed; "
        f"{len(found.verdicts)} of {found.cases_asked} cases come out otherwise"
    )


def _otherwise(verdict: VerdictChange) -> list[str]:
    what = "[bold yellow]becomes permitted[/]" if verdict.widens else "[yellow]case[/]"
    return [
        f"{what} {escape(verdict.case)} [dim]({escape(verdict.file)})[/]",
        f"    was {escape(verdict.old)}",
        f"    is  {escape(verdict.new)}",
    ]


def _from_to(change: Change) -> str:
    return f"{escape(change.old) or '(nothing)'} → {escape(change.new) or '(nothing)'}"


def _day(stamp: Timestamp) -> str:
    return stamp.ToDatetime(UTC).date().isoformat()
