"""A real ledger, two of our witnesses and a dead one: receipts with a quorum, and what happens to a fork."""

import contextlib
import json
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker.ledger import Ledger
from broker.record import Record
from countersign.ledger.v1 import append_pb2, ledger_pb2
from countersign.ledger.v1.append_pb2_grpc import LedgerAppendServiceStub
from countersign.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from ledger.__main__ import RunningLedger, running
from ledger.config import LedgerSettings
from ledger.replica import Replica
from shared.bus import connected
from shared.errors import ServiceError, Unavailable
from shared.rpc import call, open_channel
from support.ledgers import SIGNER, decided, rejected, write_settings
from support.nats_servers import NatsUnderTest
from support.terminals import Terminal, write_client
from support.waiting import until
from support.witnesses import WitnessProcess, write_witness
from tlog.policy import Policy
from tlog.proof import TlogProof
from tlog.verify import verify_proof
from witness.keys import new_keys

TIMEOUT_S = 120
WAIT = timedelta(seconds=30)


@dataclass
class Network:
    """A ledger's configuration and its three witnesses, of which the last is never started."""

    config: Path
    witnesses: list[WitnessProcess]
    policy: Policy

    def settings(self) -> LedgerSettings:
        return LedgerSettings.load(self.config)


@pytest.fixture(name="network")
async def _network(tmp_path: Path, nats_server: NatsUnderTest) -> AsyncIterator[Network]:
    config = write_settings(tmp_path, nats_server)
    witnesses = []
    lines = [f"log {SIGNER.verifier.vkey}"]
    for name in ("w1", "w2"):
        folder = tmp_path / name
        folder.mkdir()
        witness = WitnessProcess(
            write_witness(folder, SIGNER.verifier.vkey, f"witness.example/{name}")
        )
        await witness.start()
        witnesses.append(witness)
        lines.append(f"witness {name} {witness.vkey} {witness.url}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = new_keys("witness.example/w3", tmp_path / "w3")[0].verifier
        lines.append(f"witness w3 {dead.vkey} http://127.0.0.1:{taken.getsockname()[1]}")
        text = "\n".join([*lines, "group all-three 2 w1 w2 w3", "quorum all-three", ""])
        (tmp_path / "ledger.policy").write_text(text)
        with config.open("a") as file:
            file.write(
                '\n[witnessing]\npolicy = "ledger.policy"\ncosigned_checkpoint = "cosigned"\n'
                "interval_s = 0.1\ntimeout_s = 10\n"
            )
        yield Network(config, witnesses, Policy.parse(text))
    for witness in witnesses:
        witness.kill()


@dataclass
class Met:
    """A running ledger and its doors."""

    ledger: RunningLedger | Replica
    reading: LedgerServiceStub
    appending: LedgerAppendServiceStub
    health: health_pb2_grpc.HealthStub

    async def append(
        self, *pending: append_pb2.PendingEntry, **more: object
    ) -> append_pb2.AppendResponse:
        request = append_pb2.AppendRequest(entries=pending, **more)  # type: ignore[arg-type]
        response: append_pb2.AppendResponse = await call(
            self.appending.Append, request, name="append", timeout_s=TIMEOUT_S
        )
        return response

    async def receipt(self, index: int, wait: timedelta = WAIT) -> ledger_pb2.GetReceiptResponse:
        request = ledger_pb2.GetReceiptRequest(index=index)
        request.wait.FromTimedelta(wait)
        response: ledger_pb2.GetReceiptResponse = await call(
            self.reading.GetReceipt, request, name="receipt", timeout_s=TIMEOUT_S
        )
        return response

    async def serves(self, name: str) -> bool | None:
        answer = await self.health.Check(
            health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextlib.asynccontextmanager
async def met(network: Network, nats_server: NatsUnderTest) -> AsyncIterator[Met]:
    """The ledger, running."""
    async with running(network.settings()) as ledger, contextlib.AsyncExitStack() as stack:
        address = f"127.0.0.1:{ledger.server.port}"
        channels = [
            await stack.enter_async_context(
                open_channel(address, nats_server.certificates.tls(*who))
            )
            for who in (("oversight", "commission"), ("service", "broker"))
        ]
        yield Met(
            ledger,
            LedgerServiceStub(channels[0]),
            LedgerAppendServiceStub(channels[1]),
            health_pb2_grpc.HealthStub(channels[0]),
        )


@pytest.mark.promise(4)
async def test_receipts_with_two_of_three_and_one_dead(
    network: Network, nats_server: NatsUnderTest
) -> None:
    async with met(network, nats_server) as one:
        await one.append(decided(1), rejected())
        response = await one.receipt(1)
        assert (response.quorum, response.lacking) == (True, "")
        assert {cosignature.witness for cosignature in response.cosignatures} == {"w1", "w2"}

        # A stranger, with nothing but the policy and the receipt.
        proof = TlogProof.parse(response.receipt.tlog_proof)
        judged = proof.judge(response.receipt.leaf, network.policy)
        assert proof.index == 1
        assert judged.quorum
        assert set(judged.cosigned) == {"w1", "w2"}

        promised = await one.append(
            rejected(), promise=append_pb2.PROMISE_WITNESSED, witness_wait=timedelta(seconds=10)
        )
        assert (promised.witnessed, promised.lacking) == (True, "")
        (appended,) = promised.appended
        proof = TlogProof.parse(appended.receipt.tlog_proof)
        assert proof.judge(appended.receipt.leaf, network.policy).quorum
        assert await one.serves("witness/w1")
        assert await one.serves("witnesses")

        async def known_to_be_dead() -> bool:
            return await one.serves("witness/w3") is False

        await until(known_to_be_dead)

        with pytest.raises(ServiceError) as unknown:
            await one.receipt(7)
        assert unknown.value.reason == "ENTRY_UNKNOWN"


async def test_a_broker_gets_what_a_connector_that_demands_witnesses_believes(
    network: Network, nats_server: NatsUnderTest
) -> None:
    over_the_bus = nats_server.bus_settings("service", "broker")
    async with met(network, nats_server) as one, connected(over_the_bus, "broker") as bus:
        appended = (await one.append(rejected(), decided(1))).appended[1]
        broker = Ledger(bus)
        record = Record.from_receipts(appended.receipt, None)
        receipt = await broker.witnessed(record, 10)
        assert receipt.leaf == appended.receipt.leaf
        index, _ = verify_proof(receipt.leaf, receipt.tlog_proof, network.policy)
        assert index == appended.receipt.index
        network.witnesses[1].kill()
        later = (await one.append(decided(2))).appended[0]
        with pytest.raises(Unavailable) as raised:
            await broker.witnessed(Record.from_receipts(later.receipt, None), 0.1)
        assert raised.value.reason == "DECISION_UNWITNESSED"


async def test_below_the_quorum_appends_go_on_and_say_what_they_lack(
    network: Network, nats_server: NatsUnderTest
) -> None:
    async with met(network, nats_server) as one:
        await one.append(rejected())  # a log that has signed before does not wait for them
    network.witnesses[1].kill()
    async with met(network, nats_server) as one:
        promised = await one.append(
            decided(1),
            promise=append_pb2.PROMISE_WITNESSED,
            witness_wait=timedelta(milliseconds=100),
        )
        assert not promised.witnessed
        assert "needs 2 of its 3" in promised.lacking
        (appended,) = promised.appended
        judged = TlogProof.parse(appended.receipt.tlog_proof).judge(
            appended.receipt.leaf, network.policy
        )
        assert not judged.quorum

        async def with_one() -> bool:
            return {c.witness for c in (await one.receipt(1, timedelta())).cosignatures} == {"w1"}

        await until(with_one)
        response = await one.receipt(1, timedelta())
        assert not response.quorum
        assert "w2" in response.lacking
        plain = await one.append(rejected())
        assert (plain.witnessed, plain.lacking) == (False, "")

        # It comes back on the address that the policy names.
        await network.witnesses[1].start()
        assert (await one.receipt(2)).quorum


STATE = ("ledger.sqlite", "ledger.sqlite.last-signed", "cosigned")


def copy_state(folder: Path) -> None:
    """Keeps all that the ledger has on disk."""
    for name in STATE[1:]:
        shutil.copy(folder / name, folder / f"{name}.copy")
    # Whoever reads it still, as the index's process may, keeps its newest pages in a file beside it.
    kept = folder / f"{STATE[0]}.copy"
    with (
        contextlib.closing(sqlite3.connect(folder / STATE[0])) as database,
        contextlib.closing(sqlite3.connect(kept)) as copy,
    ):
        database.backup(copy)


def restore_state(folder: Path) -> None:
    """Puts the copy back, as one who has lost the rest would."""
    for leftover in folder.glob("ledger.sqlite-*"):
        leftover.unlink()
    for name in STATE:
        shutil.copy(folder / f"{name}.copy", folder / name)


async def grow_lose_and_restore(network: Network, nats_server: NatsUnderTest, folder: Path) -> None:
    """The log comes to two entries, both cosigned, and then is put back to one."""
    async with met(network, nats_server) as one:
        await one.append(decided(1))
        await one.receipt(0)
    copy_state(folder)
    async with met(network, nats_server) as one:
        await one.append(decided(2))
        await one.receipt(1)
    restore_state(folder)


@pytest.mark.promise(4)
async def test_restored_backup_signs_nothing_because_witnesses_remember(
    network: Network, nats_server: NatsUnderTest, tmp_path: Path
) -> None:
    await grow_lose_and_restore(network, nats_server, tmp_path)
    async with met(network, nats_server) as one:
        with pytest.raises(ServiceError):
            await one.append(decided(3))
        assert await one.serves("countersign.ledger.v1.LedgerService") is False


@pytest.mark.promise(4)
async def test_fork_is_refused_by_witnesses_and_stops_the_signing(
    network: Network,
    nats_server: NatsUnderTest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The witnesses are away when the restored copy starts, so that it signs another second entry."""
    await grow_lose_and_restore(network, nats_server, tmp_path)
    for witness in network.witnesses:
        witness.kill()
    async with met(network, nats_server) as one:
        forked = await one.append(decided(3))
        for witness in network.witnesses:
            await witness.start()

        async def stopped() -> bool:
            return await one.serves("countersign.ledger.v1.LedgerService") is False

        await until(stopped)
        with pytest.raises(ServiceError):
            await one.append(decided(4))
        assert await one.serves("witness/w1") is False or await one.serves("witness/w2") is False
        lacking = await one.receipt(1, timedelta())
        assert not lacking.quorum
        assert lacking.receipt.leaf == forked.appended[0].receipt.leaf
    assert "our key has signed a second history" in {record.message for record in caplog.records}


def leave_cosignatures_out(checkpoint: Path) -> None:
    """As it is before a witness has answered."""
    text, signatures = checkpoint.read_text().split("\n\n")
    own, *_ = signatures.splitlines(keepends=True)
    checkpoint.write_text(f"{text}\n\n{own}")


@pytest.mark.promise(4)
async def test_export_with_its_quorum_verifies_by_a_policy_of_ones_own(
    network: Network,
    nats_server: NatsUnderTest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From a running ledger with witnesses to files that a stranger verifies offline."""
    async with met(network, nats_server) as one:
        terminal = Terminal(write_client(tmp_path, nats_server, one.ledger.server.port), capsys)
        policy = "--policy", tmp_path / "ledger.policy"
        bare, witnessed = tmp_path / "bare", tmp_path / "witnessed"
        said = await terminal.read("export", witnessed, "--witnessed")
        assert (said.code, "the ledger has no entries" in said.err) == (1, True)
        await one.append(decided(1), rejected())
        assert (await terminal.read("export", bare)).code == 0
        leave_cosignatures_out(bare / "checkpoint")
        export = "export", witnessed, "--witnessed", "--wait", 30
        assert (await terminal.read(*export, *policy)).code == 0
        assert (await terminal.read(*export)).code == 0
        said = await terminal.run("verify", witnessed, *policy)
        assert (said.code, "cosigned by w1, w2" in said.out) == (0, True)
        said = await terminal.run("verify", bare, *policy)
        assert (said.code, "quorum of witnesses is missing" in said.out) == (1, True)

        # The ledger has grown, and nobody cosigns it: what lies in "bare" is ahead of the witnesses.
        for witness in network.witnesses:
            witness.kill()
        await one.append(decided(2))
        assert (await terminal.read("export", bare)).code == 0
        said = await terminal.read("export", bare, "--witnessed", "--wait", 0)
        assert (said.code, "cosigned 2 of the ledger's 3 entries" in said.err) == (1, True), (
            said.err
        )
        assert (await terminal.run("verify", bare, "--key", SIGNER.verifier.vkey)).code == 0

        stricter = tmp_path / "stricter.policy"
        stricter.write_text((tmp_path / "ledger.policy").read_text().replace(" 2 w1", " all w1"))
        said = await terminal.read(*export[:3], "--wait", 0, "--policy", stricter)
        assert (said.code, "without w3" in said.err) == (1, True)


@pytest.mark.promise(4)
async def test_table_with_its_quorum_verifies_by_a_policy_of_ones_own(
    network: Network,
    nats_server: NatsUnderTest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with met(network, nats_server) as one:
        terminal = Terminal(write_client(tmp_path, nats_server, one.ledger.server.port), capsys)
        policy = "--policy", tmp_path / "ledger.policy"
        bare, witnessed, late = tmp_path / "bare", tmp_path / "witnessed", tmp_path / "late"
        await one.append(decided(1), rejected())
        export = "export-table", witnessed, "--witnessed", "--wait", 30
        said = await terminal.read(*export, *policy)
        assert said.code == 0, said.err
        assert (await terminal.read("export-table", bare)).code == 0
        for witness in network.witnesses:
            witness.kill()
        said = await terminal.read("export-table", late, "--witnessed", "--wait", 0)
        assert (said.code, "the ledger's signature alone" in said.err) == (1, True), said.err

    verify = "verify-export-table", witnessed, *policy
    said = await terminal.run(*verify)
    assert (said.code, "cosigned by w1, w2" in said.out) == (0, True), said.out
    for other in (bare, late):
        said = await terminal.run("verify-export-table", other, *policy)
        assert (said.code, "quorum of witnesses is missing" in said.out) == (1, True), said.out
        key = "--key", SIGNER.verifier.vkey
        assert (await terminal.run("verify-export-table", other, *key)).code == 0

    manifest = witnessed / "manifest.json"
    whole = json.loads(manifest.read_text())
    unproved = whole["cosigned"] | {"consistency": ["AA=="]}
    manifest.write_text(json.dumps(whole | {"cosigned": unproved}))
    said = await terminal.run(*verify)
    assert (said.code, "its cosigned checkpoint" in said.out) == (1, True), said.out
    another = {"checkpoint": whole["checkpoint"], "consistency": []}
    manifest.write_text(json.dumps(whole | {"cosigned": another}))
    said = await terminal.run(*verify)
    assert (said.code, "quorum of witnesses is missing" in said.out) == (1, True), said.out
