"""`countersign directive render`: a directive as a page for a lawyer to read and sign."""

from pathlib import Path
from typing import Final

import click

from countersign.cli.directive_local import FOLDER, finding_json, world_options
from countersign.cli.escaping import escape
from countersign.cli.output import OK, REFUSED, json_option, out, print_json
from countersign.installation.files import write_public
from directive import cases
from directive.book import load_directive
from directive.document import CASES_FILE, read_file
from directive.entities import known_names
from directive.findings import DirectiveRefused
from directive.vocabulary import Vocabulary
from shared.registry import Registry
from shared.settings import SettingsError

FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("folder", type=FOLDER)
@click.option("--html", "html_file", type=FILE, default=None, help="Write the page as HTML.")
@click.option("--pdf", "pdf_file", type=FILE, default=None, help="Write the page as PDF/A.")
@world_options
@json_option
def render(
    folder: Path,
    html_file: Path | None,
    pdf_file: Path | None,
    vocabulary: Vocabulary,
    registry: Registry,
    as_json: bool,
) -> int:
    """Write a directive as a page: each rule beside its citation, its cases, a block to sign.

    Needs no server. The PDF is PDF/A with its fonts in it, the HTML one file; the same directive gives the
    same bytes. A directive that a guard refuses is not rendered.

    \b
    Example:
      countersign directive render our-department-2026 --html page.html --pdf page.pdf
    """
    if html_file is None and pdf_file is None:
        raise click.UsageError("say where to: --html FILE, --pdf FILE or both")
    try:
        from directive.rendering.html import html
        from directive.rendering.pdf import NotSet, pdf
        from directive.rendering.sheet import sheet
    except ImportError as error:
        raise SettingsError(f"rendering needs countersign[render]: {error}") from error
    where = folder.resolve()
    try:
        directive = load_directive(where, vocabulary, known_names(registry))
        content = read_file(where / CASES_FILE)
        page = sheet(directive, cases.parse(where.name, content), content)
    except DirectiveRefused as refused:
        if as_json:
            print_json({"findings": [finding_json(one) for one in refused.findings]})
        else:
            for finding in refused.findings:
                out().print(f"[bold red]refused[/] {escape(str(finding))}", soft_wrap=True)
        return REFUSED
    try:
        made = {html_file: html(page).encode() if html_file else b""}
        made[pdf_file] = pdf(page) if pdf_file else b""
    except NotSet as error:
        raise SettingsError(str(error)) from error
    written = []
    for file, content in made.items():
        if file is not None:
            write_public(file, content)
            written.append(str(file))
    if as_json:
        print_json({"written": written})
    else:
        out().print(f"Written: {escape(', '.join(written))}")
    return OK
