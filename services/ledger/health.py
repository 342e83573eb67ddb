"""Passes on to the health service what the parts of the ledger say of themselves, in their order."""

import asyncio

from shared.rpc import RunningServer


class Health:
    """Takes reports on the loop, from before the server runs."""

    def __init__(self) -> None:
        self._server: RunningServer | None = None
        self._early: dict[str, bool] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, service: str, serving: bool) -> None:
        """Say of a service, or of a name that is checked like one, whether it is well."""
        if self._server is None:
            self._early[service] = serving
            return
        task = asyncio.create_task(self._server.set_serving(service, serving))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def attach(self, server: RunningServer) -> None:
        """Have a server that tells others."""
        self._server = server
        early, self._early = self._early, {}
        for service, serving in early.items():
            self.tell(service, serving)
