"""`countersign directive` without a server: what an author does before anything is put in force."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.directive_view import print_review
from countersign.cli.output import OK, REFUSED, bar, json_option, out, print_json
from countersign.installation import bundled
from directive import cases, difference, publication, review
from directive.book import BookError, Directive, directive_folders, load_book
from directive.cases import CaseFile
from directive.difference import VerdictChange
from directive.findings import DirectiveRefused, Finding
from directive.review import Review
from directive.signature import Signers, log_of
from directive.vocabulary import Vocabulary, VocabularyError
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError
from tlog.errors import TlogError

FOLDER: Final = click.Path(path_type=Path, file_okay=False, exists=True)


def folders_argument(command: Any) -> Any:
    """Adds the folders that are judged."""
    return click.argument("folders", nargs=-1, type=FOLDER)(command)


def world_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a directive is judged by, and gives the command both, loaded."""

    @click.option(
        "--vocabulary",
        "vocabulary_folder",
        type=FOLDER,
        default=None,
        help="Folder with vocabulary.cedarschema [default: the shipped one].",
    )
    @click.option(
        "--registry",
        "registry_file",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        default=None,
        help="Registry that rules and cases name [default: the demonstration's].",
    )
    @functools.wraps(command)
    def with_world(
        *, vocabulary_folder: Path | None, registry_file: Path | None, **rest: Any
    ) -> Any:
        try:
            vocabulary = Vocabulary.load(vocabulary_folder or bundled.directives())
        except VocabularyError as error:
            raise SettingsError(str(error)) from error
        registry = Registry.load(registry_file or bundled.registry())
        return command(vocabulary=vocabulary, registry=registry, **rest)

    return with_world


def _named(folders: tuple[Path, ...]) -> list[Path]:
    """The folders given, or all that come with the project."""
    shipped = directive_folders(bundled.directives())
    return [folder.resolve() for folder in folders] or shipped


def signers_option(command: Any) -> Any:
    """Adds whose signatures are asked for."""
    return click.option(
        "--trust-roots",
        "trust_file",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        default=None,
        help="Ask who signed it, too: by the directive_signers of these trust roots (JSON).",
    )(command)


def _signers(trust_file: Path | None) -> Signers | None:
    if trust_file is None:
        return None
    try:
        trust = TrustRoots.load(trust_file)
        return Signers.parse(trust.directive_signers or {}, log_of(trust))
    except TlogError as error:
        raise SettingsError(f"{trust_file}: directive_signers: {error}") from error


def beside_option(command: Any) -> Any:
    """Adds what is in force already."""
    return click.option(
        "--beside",
        type=FOLDER,
        default=None,
        help="Folder of directives that are in force: names, prefixes and overlaps are looked at, too; by "
        "`test` also what the party decides otherwise then.",
    )(command)


@click.command()
@folders_argument
@world_options
@signers_option
@beside_option
@json_option
def lint(
    folders: tuple[Path, ...],
    vocabulary: Vocabulary,
    registry: Registry,
    trust_file: Path | None,
    beside: Path | None,
    as_json: bool,
) -> int:
    """Put directives through every guard, without asking their cases. Needs no server.

    Says what is wrong with file, line and column. Ends with 1 when anything is. Without FOLDERS, looks at
    the directives that come with the project.

    \b
    Example:
      countersign directive lint my-directives/our-department --beside .countersign/directives
    """
    signers = _signers(trust_file)
    reviews = [review.lint(one, vocabulary, registry, signers) for one in _named(folders)]
    if beside is not None:
        others = _in_force(beside, vocabulary, registry)
        reviews = [_beside(one, others, vocabulary) for one in reviews]
    return report(reviews, as_json)


def _in_force(folder: Path, vocabulary: Vocabulary, registry: Registry) -> list[Directive]:
    """What is compared with; raises SettingsError."""
    try:
        return list(load_book(folder, vocabulary, registry).directives.values())
    except BookError as error:
        raise SettingsError(f"{folder} cannot be compared with: {error}") from error


def _beside(one: Review, others: list[Directive], vocabulary: Vocabulary) -> Review:
    """With what the directives in force have to say of it."""
    if one.directive is None:
        return one
    found = publication.check_beside(one.directive, others, vocabulary)
    return review.with_findings(one, [*one.findings, *found])


@click.command()
@folders_argument
@world_options
@signers_option
@beside_option
@json_option
def test(
    folders: tuple[Path, ...],
    vocabulary: Vocabulary,
    registry: Registry,
    trust_file: Path | None,
    beside: Path | None,
    as_json: bool,
) -> int:
    """Put directives through every guard, their cases and the gates. Needs no server.

    Judges each case; then sees whether some case would notice it if a rule or a condition were left out
    or turned round. Ends with 1 when anything is found. Without FOLDERS, tests the directives that come
    with the project.

    With --beside, it also tells which cases its party decides otherwise once it stands beside what is in
    force there: first those that become permitted. That is no finding.

    \b
    Example:
      countersign directive test directives/lapd-2020-11-13
    """
    signers = _signers(trust_file)
    named = _named(folders)
    found = [review.review(one, vocabulary, registry, bar, signers) for one in named]
    if beside is not None:
        others = _in_force(beside, vocabulary, registry)
        found = [_beside(one, others, vocabulary) for one in found]
        try:
            told = [(one, cases.load(beside / one.document.name)) for one in others]
            found = [
                _with_changes(one, folder, told, vocabulary, registry)
                for folder, one in zip(named, found, strict=True)
            ]
        except DirectiveRefused as refused:
            raise SettingsError(f"{beside} cannot be compared with: {refused}") from refused
    return report(found, as_json)


def _with_changes(
    one: Review,
    folder: Path,
    others: list[tuple[Directive, CaseFile]],
    vocabulary: Vocabulary,
    registry: Registry,
) -> Review:
    """With what its party decides otherwise beside the others; raises DirectiveRefused."""
    if one.directive is None or not one.passed:
        return one  # what does not hold by itself, or cannot stand there, changes nothing yet
    new = one.directive, cases.load(folder)
    changes = difference.changed_beside(new, others, vocabulary, registry)
    return dataclasses.replace(one, changes=changes)


def report(reviews: list[Review], as_json: bool) -> int:
    """Prints what was found; gives the exit code."""
    if as_json:
        print_json({"directives": [_as_json(one) for one in reviews]})
    else:
        console = out()
        for one in reviews:
            print_review(console, one)
        failed = sum(not one.passed for one in reviews)
        verdict = f"[bold red]{failed} failed[/]" if failed else "[bold green]all pass[/]"
        console.print(f"{len(reviews)} directive(s): {verdict}")
    return OK if all(one.passed for one in reviews) else REFUSED


def _as_json(one: Review) -> dict[str, Any]:
    return {
        "name": one.name,
        "passed": one.passed,
        "findings": [finding_json(finding) for finding in one.findings],
        "cases": [
            {
                "id": result.case.id or "",
                "name": result.case.name,
                "passed": not result.problems,
                "problems": list(result.problems),
            }
            for result in one.cases
        ],
        "changes": {"tried": one.mutants, "unnoticed": len(one.survivors)},
        "verdicts": [verdict_json(change) for change in one.changes],
    }


def verdict_json(change: VerdictChange) -> dict[str, Any]:
    """A case that comes out otherwise, for programs."""
    return {"case": change.case, "of": change.file, "old": change.old, "new": change.new}


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding for programs."""
    place = finding.place
    return {
        "code": finding.guard,
        "file": finding.file,
        "line": place.line if place else None,
        "column": place.column if place else None,
        "about": finding.rule,
        "message": finding.message,
    }
