"""A connector's reports, by a process that is killed at its first page: before it is sent, or after.

`python FILE before|after FOLDER BUS_SETTINGS TIME VERIFIER_KEY`
"""

import asyncio
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from connector.reporting import Reporter
from connector.runs import RunStore
from countersign.ledger.v1.append_pb2 import ReportRunsRequest, ReportRunsResponse
from shared.bus import Bus, connected
from shared.settings import BusSettings
from shared.signing import SigningKey
from support.clocks import ClockThatStandsStill
from support.orders import SYSTEM
from tlog.note import Verifier


class LedgerThatIsTheLast:
    """Nothing happens after it was asked."""

    def __init__(self, bus: Bus, moment: str) -> None:
        self._bus = bus
        self._moment = moment

    async def request(
        self,
        subject: str,
        message: ReportRunsRequest,
        response: type[ReportRunsResponse],
        timeout_s: float,
    ) -> ReportRunsResponse:
        if message.HasField("begin") or self._moment == "after":
            answered = await self._bus.request(subject, message, response, timeout_s)
            if message.HasField("begin"):
                return answered
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")


async def main(moment: str, folder: Path, bus_settings: str, time: str, vkey: str) -> None:
    """Report what is due."""
    settings = BusSettings.model_validate_json(bus_settings)
    async with connected(settings, f"connector-{SYSTEM}") as bus:
        reporter = Reporter(
            SYSTEM,
            SigningKey.load(folder / "answers.pem"),
            [Verifier.parse(vkey)],
            RunStore(folder / "state" / "runs.sqlite"),
            LedgerThatIsTheLast(bus, moment),
            ClockThatStandsStill(datetime.fromisoformat(time)),
        )
        await reporter.report_due()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
