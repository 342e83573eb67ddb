"""A real ledger and a real witness, followed by a mirror and a monitor that trust neither."""

import asyncio
from pathlib import Path

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from countersign.mirror.copy import opened
from countersign.mirror.follow import Mirror
from countersign.mirror.memory import Memory
from countersign.mirror.sources import FolderSource, HttpSource, Source, http_session
from countersign.mirror.watch import Look, Monitor, Watched
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from shared.clock import SystemClock
from support.ledgers import LAPD, SIGNER, decided, run_program, write_settings
from support.nats_servers import NatsUnderTest
from support.waiting import until
from support.witnesses import WitnessProcess, write_witness
from tlog.policy import Policy
from tlog.verify import verify_export

ENTRIES = 300


def with_witness(config: Path, witness: WitnessProcess) -> Policy:
    """Has the ledger ask a witness, and serve what it cosigned."""
    text = f"log {SIGNER.verifier.vkey}\nwitness paper {witness.vkey} {witness.url}\nquorum paper\n"
    config.with_name("ledger.policy").write_text(text)
    with config.open("a") as file:
        file.write(
            '[witnessing]\npolicy = "ledger.policy"\ncosigned_checkpoint = "cosigned"\n'
            "interval_s = 0.1\ntimeout_s = 10\n"
            '[http]\nlisten = "127.0.0.1:0"\nport_file = "http-port"\n'
        )
    return Policy.parse(text)


async def look(policy: Policy, source: Source, against: Source, folder: Path) -> Look:
    monitor = Monitor(
        *(source, against, policy),
        Watched([LAPD], 300.0, folder / "evidence"),
        Memory.load(None, 0),
        SystemClock(),
    )
    return await monitor.look(lambda concern: None)


async def test_a_mirror_and_a_monitor_follow_a_witnessed_ledger(
    tmp_path: Path, nats_server: NatsUnderTest
) -> None:
    config = write_settings(tmp_path, nats_server)
    (tmp_path / "witness").mkdir()
    witness = WitnessProcess(write_witness(tmp_path / "witness", SIGNER.verifier.vkey))
    await witness.start()
    try:
        policy = with_witness(config, witness)
        async with running(LedgerSettings.load(config)), http_session() as session:
            broker = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
            await asyncio.gather(
                *(
                    broker.request(
                        "ledger.append",
                        AppendRequest(entries=[decided(n) for n in range(start, start + 100)]),
                        AppendResponse,
                        timeout_s=20,
                    )
                    for start in range(0, ENTRIES, 100)
                )
            )
            await broker.close()
            port = (tmp_path / "http-port").read_text().strip()
            log = HttpSource(session, f"http://127.0.0.1:{port}")

            async def cosigned() -> bool:
                note = await log.get("checkpoint", 100_000)
                return note is not None and policy.judge(note).checkpoint.size == ENTRIES

            await until(cosigned)
            copied = tmp_path / "copy"
            with opened(copied, policy) as copy:
                followed = await Mirror(log, copy, policy, SystemClock()).follow()
            assert (followed.added, followed.cosigned) == (ENTRIES, ("paper",))
            seen = await look(policy, log, HttpSource(session, witness.url), tmp_path)
            assert (seen.alarms, seen.new, seen.concerning) == ([], ENTRIES, ENTRIES)
            assert seen.age_s is not None
            assert (await look(policy, log, FolderSource(copied), tmp_path)).alarms == []
    finally:
        witness.kill()

    def read(path: str) -> bytes | None:
        file = copied / path
        return file.read_bytes() if file.exists() else None

    assert verify_export(read, policy).checkpoint.size == ENTRIES
    # The program exports what the service showed: the cosigned checkpoint, and the same files.
    exported = tmp_path / "exported"
    done = await asyncio.to_thread(run_program, "export-tiles", config, exported)
    assert done.returncode == 0, done.stderr
    for file in exported.rglob("*"):
        if file.is_file() and file.name != "checkpoint":
            assert file.read_bytes() == (copied / file.relative_to(exported)).read_bytes()
    judged = policy.judge((exported / "checkpoint").read_bytes())
    assert (judged.checkpoint.size, judged.quorum) == (ENTRIES, True)
    (tmp_path / "cosigned").unlink()
    done = await asyncio.to_thread(run_program, "export-tiles", config, exported)
    assert (done.returncode, "quorum" in done.stderr) == (1, True)
