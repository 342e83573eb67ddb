"""Where a command finds the directives and the registry that were in force when something was decided."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import click

from countersign.cli.directive_local import FOLDER, world_options
from countersign.client import ClientSettings
from countersign.client.disclosure import DisclosureClient
from countersign.client.ledger import LedgerClient
from countersign.ledger.v1 import disclosure_pb2 as pb
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from directive import holdings, worlds
from directive.book import BookError
from directive.findings import DirectiveRefused
from directive.vocabulary import Vocabulary
from directive.worlds import HeldWorlds, OneWorld, Worlds
from registry.folding import Fold
from registry.history import History
from registry.orders import OrderNotProved
from registry.publication import FIELDS
from shared.kinds import DOCUMENTS, REGISTRY
from shared.registry import Registry, TrustRoots
from shared.settings import SettingsError
from tlog.cosignature import parse_log_vkey
from tlog.errors import TlogError

Documents: TypeAlias = Sequence[tuple[int, Entry]]
"""The ledger's documents with their indexes, from the first on."""
Openings: TypeAlias = Mapping[int, Mapping[str, str]]
"""What stands behind the commitments of entries, by index and field."""


@dataclass(frozen=True)
class Source:
    """Where they are found: in the ledger, and before it held any, in a folder and a file."""

    folder: Path | None
    vocabulary: Vocabulary
    registry: Registry

    def worlds(self, documents: Documents, openings: Openings, trust: TrustRoots) -> Worlds:
        """What was in force after each document; raises SettingsError for what cannot be read.

        `openings` are those of registrations of officers, as far as the caller has a right to them.
        """
        files = self._files()
        if not documents and files is not None:
            return files
        against = holdings.World(self.vocabulary, None, None)
        history = None
        if any(entry.WhichOneof("event") in REGISTRY for _, entry in documents):
            history = _history(documents, openings, trust).after
        try:
            return HeldWorlds(documents, against, self.registry, files, history)
        except DirectiveRefused as error:
            raise SettingsError(f"what the ledger holds cannot be applied: {error}") from error

    def _files(self) -> OneWorld | None:
        if self.folder is None:
            return None
        try:
            return worlds.folders(self.folder, self.vocabulary, self.registry)
        except BookError as error:
            raise SettingsError(f"{self.folder}: the directives are not loaded: {error}") from error


def _history(documents: Documents, openings: Openings, trust: TrustRoots) -> History:
    try:
        return History(documents, openings, _fold(trust))
    except OrderNotProved as error:
        raise SettingsError(f"the trust roots do not name the same registrars: {error}") from error


def _fold(trust: TrustRoots) -> Fold:
    """What owners publish, of whom none has yet."""
    if not trust.registry_signers:
        raise SettingsError(
            "owners register in this ledger, and the trust roots do not say with which keys: "
            "take registry_signers from the operator's"
        )
    try:
        origin = parse_log_vkey(trust.log_verifier_keys[0]).name
        return Fold(trust.registry_signers, origin, trust.registrars)
    except TlogError as error:
        raise SettingsError(f"trust roots: a verifier key cannot be read: {error}") from error


async def documents_of(settings: ClientSettings) -> Documents:
    """All that the ledger lists.

    That is not proved here, and need not be: a decision names each text, and the registry, by its digest.
    """
    found: list[tuple[int, Entry]] = []
    async with LedgerClient.connect(settings) as client:
        for kind in DOCUMENTS:
            wanted = ListEntriesRequest(kind=str(kind))
            found += [(one.index, one.entry) async for one in client.entries(wanted)]
    return sorted(found, key=lambda one: one[0])


async def officers_opened(
    settings: ClientSettings,
    documents: Documents,
    ground: pb.Ground,
    agencies: Sequence[str] = (),
    decided: Entry | None = None,
) -> Openings:
    """What officers were registered as: by right, and on record as one entry. Nothing where none was.

    Those of all agencies to whose openings the caller has a right, unless some are named; and, where a
    decision is, no later than that. Raises ServiceError, and VerificationError.
    """
    if not any(entry.HasField("officers_published") for _, entry in documents):
        return {}
    request = pb.ReadRequestsRequest(
        agencies=agencies, fields=FIELDS, ground=ground, registrations=True
    )
    if decided is not None:
        moment = decided.recorded_at.ToDatetime() + timedelta(microseconds=1)
        request.recorded_until.FromDatetime(moment)
    async with DisclosureClient.connect(settings) as client:
        return {
            row.index: {one.field: one.value for one in row.openings}
            async for row, _ in client.read_requests(request)
        }


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
