"""Where a command finds the directives and the registry that were in force when something was decided."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from countersign.cli.directive_local import FOLDER, world_options
from countersign.client import ClientSettings
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from directive import holdings, worlds
from directive.book import BookError
from directive.findings import DirectiveRefused
from directive.vocabulary import Vocabulary
from directive.worlds import HeldWorlds, OneWorld, Worlds
from shared.kinds import DOCUMENTS
from shared.registry import Registry
from shared.settings import SettingsError


@dataclass(frozen=True)
class Source:
    """Where they are found: in the ledger, and before it held any, in a folder."""

    folder: Path | None
    vocabulary: Vocabulary
    registry: Registry

    async def read(self, settings: ClientSettings) -> Worlds:
        """All of them; raises SettingsError for what cannot be read.

        What the ledger lists is not proved here, and need not be: a decision names each text by its digest.
        """
        files = self._files()
        found = []
        async with LedgerClient.connect(settings) as client:
            for kind in DOCUMENTS:
                wanted = ListEntriesRequest(kind=str(kind))
                found += [(one.index, one.entry) async for one in client.entries(wanted)]
        if not found and files is not None:
            return files
        against = holdings.World(self.vocabulary, None, None)
        documents = sorted(found, key=lambda one: one[0])
        try:
            return HeldWorlds(documents, against, self.registry, files)
        except DirectiveRefused as error:
            raise SettingsError(f"what the ledger holds cannot be applied: {error}") from error

    def _files(self) -> OneWorld | None:
        if self.folder is None:
            return None
        try:
            return worlds.folders(self.folder, self.vocabulary, self.registry)
        except BookError as error:
            raise SettingsError(f"{self.folder}: the directives are not loaded: {error}") from error


def worlds_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the folders, and gives the command where to find what was in force."""

    @click.option(
        "--directives",
        "directives_folder",
        type=FOLDER,
        default=None,
        help="Folder of the directives that were in force while the ledger held none. Later ones are taken "
        "from the ledger.",
    )
    @world_options
    @functools.wraps(command)
    def with_worlds(
        *, directives_folder: Path | None, vocabulary: Vocabulary, registry: Registry, **rest: Any
    ) -> Any:
        return command(source=Source(directives_folder, vocabulary, registry), **rest)

    return with_worlds
