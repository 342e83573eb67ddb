"""`countersign directive`: what each party has ordered, and whether a directive does what it says."""

from pathlib import Path
from typing import Any, Final

import click

from countersign.cli.connection import config_option, load, run
from countersign.cli.directive_view import print_directive, print_list, print_report
from countersign.cli.output import OK, REFUSED, json_option, message_dict, out, print_json
from countersign.client import ClientSettings
from countersign.installation import bundled
from countersign.policy.v1 import policy_pb2 as pb
from countersign.policy.v1.policy_pb2_grpc import PolicyServiceStub
from directive import cases
from directive.book import load_directive
from directive.cases import CasesReport
from directive.document import DocumentError
from directive.entities import EntitiesError, known_names
from directive.guards import DirectiveRefused
from directive.vocabulary import Vocabulary, VocabularyError
from shared.registry import Registry
from shared.rpc import call, open_channel
from shared.settings import SettingsError

SERVICE: Final = "countersign.policy.v1.PolicyService"
CALL_TIMEOUT_S: Final = 10.0
PAGES_MAX: Final = 100


@click.group()
def directive() -> None:
    """Read what each party has ordered, and test directives before they are put in force."""


@directive.command(name="list")
@config_option
@click.option("--party", default="", help="Only this party's: an ORI, or a jurisdiction (US-CA).")
@json_option
def list_directives(config: Path, party: str, as_json: bool) -> None:
    """List the directives that the policy service has loaded.

    \b
    Example:
      countersign directive list --party CA0194200
    """
    found = run(_list(load(config), party))
    if as_json:
        print_json({"directives": [message_dict(one) for one in found]})
        return
    print_list(out(), found)


@directive.command()
@click.argument("name")
@config_option
@json_option
@click.option("--rules", "as_written", is_flag=True, help="Print the rules as written (Cedar).")
def show(name: str, config: Path, as_json: bool, as_written: bool) -> None:
    """Show one directive: its source, and each rule with its citation.

    \b
    Example:
      countersign directive show lapd-2020-11-13
    """
    response = run(_show(load(config), name))
    if as_json:
        print_json(message_dict(response))
    elif as_written:
        click.echo(response.rules, nl=False)
    else:
        print_directive(out(), response)


@directive.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--vocabulary",
    "vocabulary_folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
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
@json_option
def test(
    folders: tuple[Path, ...],
    vocabulary_folder: Path | None,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Put directives through every guard and judge their cases. Needs no server.

    Without FOLDERS, tests the directives that come with the project.

    \b
    Example:
      countersign directive test directives/lapd-2020-11-13
    """
    try:
        vocabulary = Vocabulary.load(vocabulary_folder or bundled.directives())
    except VocabularyError as error:
        raise SettingsError(str(error)) from error
    registry = Registry.load(registry_file or bundled.registry())
    shipped = sorted(path for path in bundled.directives().iterdir() if path.is_dir())
    outcomes = [_outcome(folder, vocabulary, registry) for folder in folders or shipped]
    if as_json:
        print_json({"directives": [_as_json(*outcome) for outcome in outcomes]})
    else:
        console = out()
        for name, report, problems in outcomes:
            print_report(console, name, report, problems)
        failed = sum(not _passed(*outcome) for outcome in outcomes)
        verdict = f"[bold red]{failed} failed[/]" if failed else "[bold green]all pass[/]"
        console.print(f"{len(outcomes)} directive(s): {verdict}")
    return OK if all(_passed(*outcome) for outcome in outcomes) else REFUSED


Outcome = tuple[str, CasesReport | None, tuple[str, ...]]
"""Name, what came of its cases, and why they could not be judged."""


def _outcome(folder: Path, vocabulary: Vocabulary, registry: Registry) -> Outcome:
    name = folder.resolve().name
    try:
        loaded = load_directive(folder.resolve(), vocabulary, known_names(registry))
        return name, cases.run(loaded, cases.load(folder.resolve()), vocabulary, registry), ()
    except DirectiveRefused as refused:
        return name, None, tuple(str(finding) for finding in refused.findings)
    except (DocumentError, EntitiesError) as error:
        return name, None, (str(error),)


def _passed(_: str, report: CasesReport | None, problems: tuple[str, ...]) -> bool:
    return report is not None and report.passed and not problems


def _as_json(name: str, report: CasesReport | None, problems: tuple[str, ...]) -> dict[str, Any]:
    results = report.results if report else ()
    return {
        "name": name,
        "passed": _passed(name, report, problems),
        "problems": list(problems),
        "rules_not_fired": list(report.rules_not_fired) if report else [],
        "cases": [
            {
                "id": result.case.id or "",
                "name": result.case.name,
                "passed": not result.problems,
                "problems": list(result.problems),
            }
            for result in results
        ],
    }


async def _list(settings: ClientSettings, party: str) -> list[pb.Directive]:
    found: list[pb.Directive] = []
    async with open_channel(settings.policy.address, settings.tls) as channel:
        stub = PolicyServiceStub(channel)
        token = ""
        for _ in range(PAGES_MAX):
            page = await call(
                stub.ListDirectives,
                pb.ListDirectivesRequest(party=party, page_token=token),
                name=f"{SERVICE}/ListDirectives",
                timeout_s=CALL_TIMEOUT_S,
            )
            found += page.directives
            token = page.next_page_token
            if not token:
                break
    return found


async def _show(settings: ClientSettings, name: str) -> pb.GetDirectiveResponse:
    async with open_channel(settings.policy.address, settings.tls) as channel:
        return await call(
            PolicyServiceStub(channel).GetDirective,
            pb.GetDirectiveRequest(name=name),
            name=f"{SERVICE}/GetDirective",
            timeout_s=CALL_TIMEOUT_S,
        )
