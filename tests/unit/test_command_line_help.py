"""Every command explains itself, and does so the same way."""

from collections.abc import Iterator

import click
import pytest

from countersign.cli.main import COMMANDS, countersign, exit_code

WITHOUT_RESULT = {
    "countersign up",
    "countersign demo",
    "countersign witness",
    "countersign kubernetes parties",
    "countersign kubernetes trial",
}
"""Commands that run or tell something, or whose result is a document for another program."""


def commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, f"{path} {name}")


ALL = dict(commands(countersign, "countersign"))


@pytest.mark.parametrize("path", ALL)
def test_each_command_says_what_it_does_with_an_example(path: str) -> None:
    text = ALL[path].help or ""
    assert "Example" in text
    assert path in text, "an example names the command in full"


@pytest.mark.parametrize("path", sorted(set(ALL) - WITHOUT_RESULT))
def test_each_result_can_be_had_as_json(path: str) -> None:
    assert "--json" in [name for option in ALL[path].params for name in option.opts]


@pytest.mark.parametrize("path", ALL)
def test_each_option_says_what_it_is_for(path: str) -> None:
    options = [option for option in ALL[path].params if isinstance(option, click.Option)]
    assert all(option.help for option in options)


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert "Exit codes" in text


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
