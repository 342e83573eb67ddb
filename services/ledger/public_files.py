"""What anybody may read of a running ledger: over HTTP, and as files in a folder."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from ledger.config import LedgerSettings
from ledger.log import OpenLog
from ledger.standby import NotWitnessed, StandbyLog
from ledger.static_export import StaticExport, exporting
from ledger.witnessing import Witnessing
from tlog.cosignature import LogVerifier

if TYPE_CHECKING:
    from ledger.tiles_http import ServingHttp


@contextlib.asynccontextmanager
async def public_files(
    settings: LedgerSettings,
    log: OpenLog | StandbyLog,
    verifiers: Sequence[LogVerifier],
    witnessing: Witnessing | NotWitnessed | None,
) -> "AsyncIterator[ServingHttp | None]":
    """Serve and export as the settings say; raises SettingsError.

    With witnesses, what counts is the newest checkpoint that has their quorum.
    """

    def newest() -> str:
        return log.sequencer.published.note

    def witnessed() -> str | None:
        if witnessing is None:
            return newest()
        return None if witnessing.cosigned is None else witnessing.cosigned.note

    async with contextlib.AsyncExitStack() as stack:
        if settings.export is not None:
            reader = log.tile_reader()
            stack.callback(reader.close)
            export = StaticExport(settings.export.folder, verifiers)
            await stack.enter_async_context(
                exporting(export, reader, witnessed, settings.export.every_s)
            )
        serving = None
        if settings.http is not None:
            # Only here: most of what it reads is a web server.
            from ledger.tiles_http import Notes, TilesHttp, serving_http

            reader = log.tile_reader()
            stack.callback(reader.close)
            answers = TilesHttp(reader, Notes(witnessed, newest), settings.http.prefix)
            serving = await stack.enter_async_context(serving_http(settings.http, answers))
        yield serving
