"""Where a command finds the directives and the registry that were in force when something was decided."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from countersign.cli.directive_local import FOLDER, world_options
from countersign.installation import bundled
from directive import worlds
from directive.book import BookError
from directive.vocabulary import Vocabulary
from directive.worlds import Worlds
from shared.registry import Registry
from shared.settings import SettingsError


def worlds_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the folders, and gives the command what they hold."""

    @click.option(
        "--directives",
        "directives_folder",
        type=FOLDER,
        default=None,
        help="Folder of the directives that were in force [default: the shipped ones].",
    )
    @world_options
    @functools.wraps(command)
    def with_worlds(
        *, directives_folder: Path | None, vocabulary: Vocabulary, registry: Registry, **rest: Any
    ) -> Any:
        folder = directives_folder or bundled.directives()
        try:
            known: Worlds = worlds.folders(folder, vocabulary, registry)
        except BookError as error:
            raise SettingsError(f"{folder}: the directives are not loaded: {error}") from error
        return command(worlds=known, vocabulary=vocabulary, **rest)

    return with_worlds
