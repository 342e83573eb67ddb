"""The `countersign` command: its sub-commands, and the one place where errors become exit codes."""

import importlib
import os
import signal
import sys
from importlib.metadata import version
from typing import Any, Final

import click

from countersign.cli.output import REFUSED, UNREACHABLE, USAGE, print_error

COMMANDS: Final = {
    "up": ("countersign.cli.up", "Run every part on this machine until Ctrl-C."),
    "demo": ("countersign.cli.demo", "Show real searches permitted, refused and proved."),
    "search": ("countersign.cli.search", "Ask for face searches and follow them."),
    "bench": ("countersign.cli.bench", "Measure an installation under load."),
    "system": ("countersign.cli.system", "See the systems that can be searched."),
    "directive": ("countersign.cli.directive", "Read what each party has ordered."),
    "vocabulary": (
        "countersign.cli.vocabulary",
        "Sign the words of directives; try new ones.",
    ),
    "registry": ("countersign.cli.registry", "Register an agency, its systems and its officers."),
    "ledger": ("countersign.cli.ledger", "Read the record, and verify it without trusting anyone."),
    "reconcile": (
        "countersign.cli.reconcile",
        "Find searches that were run outside the broker.",
    ),
    "witness": ("countersign.cli.witness", "Run a witness of ledgers, or make its keys."),
    "config": (
        "countersign.cli.config",
        "Check a process's configuration, or show what is in force.",
    ),
    "machine": ("countersign.cli.machine", "Prepare one machine for production."),
    "kubernetes": (
        "countersign.cli.kubernetes",
        "Write what an installation on Kubernetes mounts.",
    ),
    "officer": ("countersign.cli.officer", "Have officer tokens issued, for trying things out."),
}
"""Each sub-command with its module and what it is for. A module is read only when it is called."""

BROKEN_PIPE: Final = 128 + signal.SIGPIPE
"""What a shell says of a program whose reader went away."""


class LazyCommands(click.Group):
    """Sub-commands that are read when they are called, so that --help and completion stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, as in COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The sub-command of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists them without reading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in COMMANDS.items()])


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 refused, or not verified; 2 not understood; 3 a server could not be "
    "reached or turned the call away; 7 the record contradicts itself. Most commands need a configuration "
    "file: --config, or COUNTERSIGN_CONFIG in the environment.",
)
@click.version_option(version("countersign"), prog_name="countersign")
def countersign() -> None:
    """Face searches between agencies, under every department's directive, on the record."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and ends the process with its exit code."""
    sys.exit(exit_code(arguments))


def exit_code(arguments: list[str] | None = None) -> int:
    """Runs the command; gives its exit code."""
    try:
        code: Any = countersign(arguments, standalone_mode=False)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.Abort:
        return USAGE
    except click.ClickException as error:
        error.show()
        return USAGE
    except BrokenPipeError:
        # Whoever read our output has had enough. What is still buffered must go nowhere, or the
        # interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        # Bytes of an argument that are no text come in a form that no message can hold.
        click.UsageError("what was given is not text in UTF-8").show()
        return USAGE
    except Exception as error:  # sorted below; what is not expected goes on as it is
        expected = _exit_code_of(error)
        if expected is None:
            raise
        print_error(error)
        return expected
    return int(code) if isinstance(code, int) else 0


def _exit_code_of(error: Exception) -> int | None:
    # Read here, because importing gRPC takes longer than printing a help text.
    from countersign.client import ProbeRefused, VerificationError
    from countersign.client.prepare import NotPrepared
    from shared.errors import ServiceError
    from shared.registry import RegistryError
    from shared.settings import SettingsError
    from shared.signing import BadKey

    if isinstance(error, ServiceError):
        return UNREACHABLE
    if isinstance(error, VerificationError):
        return REFUSED
    if isinstance(error, ProbeRefused | NotPrepared | RegistryError | SettingsError | BadKey):
        return USAGE
    return None
