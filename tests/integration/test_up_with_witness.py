"""An installation with a witness of its own: what it shows to anybody has been cosigned."""

import asyncio
from pathlib import Path

import aiohttp

from countersign.client import ClientSettings
from countersign.client.ledger import LedgerClient
from support.installations import InstallationUnderTest
from support.waiting import until
from tlog.policy import Judged, Policy


async def shown(one: InstallationUnderTest) -> Judged:
    """The checkpoint on the public port, judged by the policy that the installation wrote."""
    policy = Policy.parse(one.layout.policy.read_bytes())
    url = f"http://127.0.0.1:{one.ports.ledger_http}/checkpoint"

    async def with_quorum() -> str | None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text() if response.status == 200 else None

    return policy.judge(await until(with_quorum))


async def test_public_checkpoint_is_cosigned_and_the_witness_remembers(tmp_path: Path) -> None:
    with InstallationUnderTest(tmp_path / "data", witness=True) as one:
        first = await shown(one)
        assert first.quorum
        assert set(first.cosigned) == {"up"}
        settings = ClientSettings.load(one.layout.oversight_client)
        async with LedgerClient.connect(settings) as client:
            pending = (await client.checkpoint()).checkpoint
        assert first.checkpoint.text in pending

        one.layout.witness_begun.write_bytes(b"")  # as the supervisor does
        await asyncio.to_thread(one.processes["witness"].stop)
        one.processes["witness"].start()
        assert "ready" in one.processes["witness"].log
        assert (await shown(one)).quorum
