"""The kind of an entry as an option of a command."""

from typing import Any, Final

import click

from shared.kinds import KIND_MAX, KIND_MIN, KINDS, kind_of


class EntryKind(click.ParamType[str]):
    """A kind of entry: its name, or its number, which may be one that this program does not know."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it was given."""
        if kind_of(str(value)) is None:
            self.fail(
                f"{str(value)!r} is not one of {', '.join(KINDS)}, nor a number from "
                f"{KIND_MIN} to {KIND_MAX}",
                param,
                ctx,
            )
        return str(value)


KIND: Final = EntryKind()
