"""What anybody may read of a running ledger: over HTTP, and as files in a folder."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from ledger.config import LedgerSettings
from ledger.log import OpenLog
from ledger.static_export import StaticExport, exporting
from ledger.tiles_http import Notes, ServingHttp, TilesHttp, serving_http
from tlog.note import Verifier


@contextlib.asynccontextmanager
async def public_files(
    settings: LedgerSettings, log: OpenLog, verifiers: Sequence[Verifier]
) -> AsyncIterator[ServingHttp | None]:
    """Serve and export as the settings say; raises SettingsError."""

    def newest() -> str:
        return log.sequencer.published.note

    async with contextlib.AsyncExitStack() as stack:
        if settings.export is not None:
            reader = log.tile_reader()
            stack.callback(reader.close)
            export = StaticExport(settings.export.folder, verifiers)
            await stack.enter_async_context(
                exporting(export, reader, newest, settings.export.every_s)
            )
        serving = None
        if settings.http is not None:
            reader = log.tile_reader()
            stack.callback(reader.close)
            answers = TilesHttp(reader, Notes(newest, newest), settings.http.prefix)
            serving = await stack.enter_async_context(serving_http(settings.http, answers))
        yield serving
