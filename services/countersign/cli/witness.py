"""`countersign witness`: the witness's own program, where only this command is at hand."""

import os
import sys
from typing import Final

import click

PROGRAM: Final = "witness"


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG | COMMAND …")
def witness(arguments: tuple[str, ...]) -> None:
    """Run a witness of ledgers, or make its keys.

    The same as countersign-witness: this process becomes the witness, so that signals and exit codes are
    its own.

    \b
    Examples:
      countersign witness new-key witness.example/tribune keys
      countersign witness witness.toml
      countersign witness evidence witness.toml
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a folder named "witness" where this is called must not be taken for ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", PROGRAM, *arguments])  # noqa: S606
