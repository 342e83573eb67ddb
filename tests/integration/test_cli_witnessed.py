"""`countersign ledger prove --witnessed`: what it says of witnesses, and on whose word."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from countersign.ledger.v1.append_pb2 import AppendRequest, AppendResponse
from ledger.__main__ import running
from ledger.config import LedgerSettings
from shared.bus import Bus
from support.clocks import ClockThatStandsStill
from support.ledgers import SIGNER, decided
from support.ledgers import write_settings as write_ledger_settings
from support.nats_servers import NatsUnderTest
from support.terminals import Terminal, write_client
from support.witnesses import COSIGNER, PQ_COSIGNER, serving
from tlog.__main__ import main as verify_alone
from tlog.cosignature import CosignatureKind, Cosigner
from witness.cosigning import Witness
from witness.store import Store

ABSENT = Cosigner.from_seed("witness.example/absent", bytes(32), CosignatureKind.ED25519)


@dataclass
class Terminals:
    """The command before a ledger whose own policy asks for so many witnesses."""

    terminal: Terminal
    folder: Path

    def policy(self, name: str, quorum: str) -> Path:
        """A reader's own policy: w1 is there, "absent" is not."""
        path = self.folder / f"{name}.policy"
        path.write_text(
            f"log {SIGNER.verifier.vkey}\nwitness paper {COSIGNER.verifier.vkey}\n"
            f"witness absent {ABSENT.verifier.vkey}\n{quorum}\n"
        )
        return path


@contextlib.asynccontextmanager
async def before(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str], needed: int
) -> AsyncIterator[Terminals]:
    """A ledger with one entry, one witness with two keys, and one key that nobody has."""
    config = write_ledger_settings(tmp_path, nats_server)
    logs = {SIGNER.verifier.name: (SIGNER.verifier,)}
    with contextlib.closing(Store.open(tmp_path / "witness.sqlite3", create=True)) as store:
        witness = Witness(logs, (COSIGNER, PQ_COSIGNER), store, ClockThatStandsStill())
        async with serving(witness, tmp_path) as url:
            (tmp_path / "own.policy").write_text(
                f"log {SIGNER.verifier.vkey}\nwitness w1 {COSIGNER.verifier.vkey} {url}\n"
                f"witness w1-pq {PQ_COSIGNER.verifier.vkey} {url}\n"
                f"witness absent {ABSENT.verifier.vkey}\n"
                f"group g {needed} w1 w1-pq absent\nquorum g\n"
            )
            with config.open("a") as file:
                file.write(
                    '\n[witnessing]\npolicy = "own.policy"\ncosigned_checkpoint = "cosigned"\n'
                    "interval_s = 0.1\ntimeout_s = 10\n"
                )
            async with running(LedgerSettings.load(config)) as ledger:
                bus = await Bus.connect(nats_server.bus_settings("service", "broker"), "broker")
                await bus.request(
                    "ledger.append",
                    AppendRequest(entries=[decided(1)]),
                    AppendResponse,
                    timeout_s=20,
                )
                client = write_client(tmp_path, nats_server, ledger.server.port)
                yield Terminals(Terminal(client, capsys), tmp_path)
                await bus.close()


async def test_quorum_by_the_ledgers_word_and_by_ones_own_policy(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with before(tmp_path, nats_server, capsys, 2) as one:
        told = await one.terminal.read("prove", 0, "--witnessed", "--wait", 30)
        assert told.code == 0
        assert "The ledger says" in told.err
        assert "--policy" in told.err

        good = one.policy("good", "quorum paper")
        receipts = tmp_path / "receipts"
        judged = await one.terminal.read(
            "prove", 0, "--witnessed", "--policy", good, "--save", receipts, "--json"
        )
        assert judged.code == 0
        assert judged.document["judged_by"] == "policy"
        assert set(judged.document["cosigned"]) == {"paper"}
        assert judged.document["quorum"]
        offline = await one.terminal.read(
            "verify", receipts / "entry-0.tlog-proof", "--policy", good
        )
        assert offline.code == 0, offline.out

        strict = one.policy("strict", "group both all paper absent\nquorum both")
        lacking = await one.terminal.read("prove", 0, "--witnessed", "--policy", strict)
        assert lacking.code == 1
        assert "LACKS WITNESSES" in lacking.err
        assert "absent" in lacking.err
        assert lacking.out.startswith("c2sp.org/tlog-proof@v1\n"), (
            "what there is, is given all the same"
        )


async def test_export_keeps_what_cosigned_its_newest_checkpoint(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --witnessed too, once the witness has had its time: verified by `tlog` alone."""
    async with before(tmp_path, nats_server, capsys, 2) as one:
        await one.terminal.read("prove", 0, "--witnessed", "--wait", 30)
        exported = await one.terminal.read("export", tmp_path / "copy")
        assert exported.code == 0, exported.err
        good = one.policy("good", "quorum paper")
        assert verify_alone([str(tmp_path / "copy"), "--policy", str(good)]) == 0


async def test_ledger_without_its_quorum_says_what_it_lacks(
    tmp_path: Path, nats_server: NatsUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with before(tmp_path, nats_server, capsys, 3) as one:
        told = await one.terminal.read("prove", 0, "--witnessed", "--json")
        assert told.code == 1
        document = json.loads(told.out)
        assert not document["quorum"]
        assert "absent" in document["lacking"]
        assert document["verified"]["size"] == 1


@pytest.mark.parametrize(
    "arguments", [("--wait", "3"), ("--policy", "here"), ("--witnessed", "--tree-size", "1")]
)
async def test_options_that_do_not_go_together(
    tmp_path: Path,
    nats_server: NatsUnderTest,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    here = tmp_path / "here"
    here.touch()
    given = [str(here) if one == "here" else one for one in arguments]
    terminal = Terminal(write_client(tmp_path, nats_server, 1), capsys)
    assert (await terminal.read("prove", 0, *given)).code == 2
