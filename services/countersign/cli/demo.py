"""`countersign demo`: the demonstration."""

import asyncio

import click

from countersign.cli.output import REFUSED, err, out
from countersign.cli.signals import until_told


@click.command()
def demo() -> int:
    """Show real searches permitted, refused and proved.

    Starts every part on this machine, on free ports and in a temporary directory, and tells in six
    scenes what a search passes through. Exit code 1 if anything did not happen as promised.

    \b
    Example:
      countersign demo
    """
    # Read here: it brings everything that an installation needs.
    from countersign.demo.telling import tell

    try:
        return asyncio.run(until_told(tell(out())))
    except asyncio.CancelledError:
        err().print("Stopped.")
        return REFUSED
