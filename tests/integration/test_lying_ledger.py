"""The command line before a ledger that lies: what it shows of the record is what was proved, or nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path

import grpc
import pytest

from countersign.cli.ledger_files import Export
from countersign.cli.main import exit_code
from countersign.client import VerificationError
from countersign.ledger.v1 import ledger_pb2 as pb
from countersign.ledger.v1 import query_pb2
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2_grpc import (
    LedgerServiceServicer,
    add_LedgerServiceServicer_to_server,
)
from countersign.ledger.v1.query_pb2_grpc import (
    LedgerQueryServiceServicer,
    add_LedgerQueryServiceServicer_to_server,
)
from shared import rpc
from shared.settings import ListenSettings
from support.doors import LAPD, TRUST_DOMAIN, Pki
from support.exports import tree_of
from support.ledgers import COMPLETER, SIGNER, decided
from support.terminals import VKEY, Terminal
from tlog.checkpoint import Checkpoint, sign_checkpoint
from tlog.merkle import leaf_hash
from tlog.proof import write_proof

ASKED_FOR = 1
NO_ENTRY = b"\xff\xff\xff no message at all"
OF_ANOTHER_SYSTEM, OF_NO_TIME = 4, 5


def leaf_of(number: int, system: str = "lacris") -> bytes:
    pending = decided(number)
    pending.entry.search_decided.summary.system = system
    leaf = COMPLETER.complete(pending, "entry").leaf
    if number != OF_NO_TIME:
        return leaf
    entry = Entry.FromString(leaf)
    entry.recorded_at.seconds = 10**15
    return entry.SerializeToString()


def exported(query: str) -> bytes:
    """An export without rows, on record."""
    entry = Entry(schema_epoch=1)
    entry.export_made.query, entry.export_made.tree_size = query, EXPORTED
    entry.export_made.indexes_sha256 = sha256(b"").digest()
    return entry.SerializeToString()


EXPORTED = 6
QUERY = '{"agency":"CA0194200","agency_role":"AGENCY_ROLE_BENEFICIARY"}'
LEAVES = [
    *(leaf_of(number) for number in range(3)),
    NO_ENTRY,
    leaf_of(OF_ANOTHER_SYSTEM, "facefind"),
    leaf_of(OF_NO_TIME),
    exported(QUERY),
]
ANOTHER = Entry(schema_epoch=1, search_id="a search that was never made")
SERVICES = ("countersign.ledger.v1.LedgerService", "countersign.ledger.v1.LedgerQueryService")
METHODS = (
    f"/{SERVICES[1]}/ExportEntries",
    f"/{SERVICES[0]}/GetEntry",
    f"/{SERVICES[0]}/GetInclusionProof",
    f"/{SERVICES[1]}/QueryEntries",
)


class Lies:
    """What it says of an entry, beside what it can prove."""

    def __init__(self) -> None:
        tree = tree_of([leaf_hash(leaf) for leaf in LEAVES], len(LEAVES))
        self.tree = tree
        checkpoint = Checkpoint(SIGNER.name, len(LEAVES), tree.root)
        self.note = sign_checkpoint(checkpoint, SIGNER)
        self.index = ASKED_FOR
        """Of the entry that it gives, whichever was asked for."""
        self.says_index = ASKED_FOR
        self.says: Entry | None = None

    @property
    def record(self) -> pb.EntryRecord:
        """The entry as it tells of it."""
        return pb.EntryRecord(index=self.says_index, leaf=LEAVES[self.index], entry=self.says)

    @property
    def proof(self) -> str:
        """That is true, of the entry that it gives."""
        return write_proof(self.index, self.tree.inclusion_proof(self.index), self.note)


class LedgerThatLies(LedgerServiceServicer):
    """Gives an entry and its proof."""

    def __init__(self, lies: Lies) -> None:
        self._lies = lies

    async def GetEntry(  # noqa: N802  # named by the contract, like those below
        self, request: pb.GetEntryRequest, context: rpc.Context
    ) -> pb.GetEntryResponse:
        """Whatever was asked for."""
        return pb.GetEntryResponse(record=self._lies.record)

    async def GetInclusionProof(  # noqa: N802
        self, request: pb.GetInclusionProofRequest, context: rpc.Context
    ) -> pb.GetInclusionProofResponse:
        """Whatever was asked for."""
        return pb.GetInclusionProofResponse(tree_size=len(LEAVES), tlog_proof=self._lies.proof)


class QueriesThatLie(LedgerQueryServiceServicer):
    """Finds the one entry."""

    def __init__(self, lies: Lies) -> None:
        self._lies = lies

    async def QueryEntries(  # noqa: N802
        self, request: query_pb2.QueryEntriesRequest, context: rpc.Context
    ) -> query_pb2.QueryEntriesResponse:
        """Whatever was asked for."""
        lies = self._lies
        return query_pb2.QueryEntriesResponse(
            basis=query_pb2.Basis(tree_size=len(LEAVES), root=lies.tree.root, checkpoint=lies.note),
            entries=[query_pb2.FoundEntry(record=lies.record, tlog_proof=lies.proof)],
        )

    async def ExportEntries(  # noqa: N802
        self, request: query_pb2.ExportEntriesRequest, context: rpc.Context
    ) -> AsyncIterator[query_pb2.ExportEntriesResponse]:
        """By the query on record, whatever was asked."""
        lies = self._lies
        leaf = LEAVES[EXPORTED]
        record = pb.EntryRecord(index=EXPORTED, leaf=leaf, entry=Entry.FromString(leaf))
        lies.index = EXPORTED
        yield query_pb2.ExportEntriesResponse(
            beginning=query_pb2.ExportBeginning(
                basis=query_pb2.Basis(tree_size=EXPORTED, checkpoint=lies.note),
                export_made=query_pb2.FoundEntry(record=record, tlog_proof=lies.proof),
                checkpoint=lies.note,
            )
        )


@pytest.fixture(name="lies")
def _lies() -> Lies:
    return Lies()


@pytest.fixture(name="terminal")
async def _terminal(
    tmp_path: Path, lies: Lies, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Terminal]:
    pki = await asyncio.to_thread(Pki, tmp_path)
    entries, queries = _servicers(lies)

    def register(server: grpc.aio.Server) -> None:
        add_LedgerServiceServicer_to_server(entries, server)
        add_LedgerQueryServiceServicer_to_server(queries, server)

    server = await rpc.start_server(
        register,
        services=SERVICES,
        listen=ListenSettings(
            address="127.0.0.1:0", tls=pki.issue("service", "ledger", listens=True)
        ),
        trust_domain=TRUST_DOMAIN,
        access={method: lambda _: True for method in METHODS},
    )
    keys = {"log_verifier_keys": [VKEY], "broker_verify_keys": ["A" * 43 + "="]}
    (tmp_path / "trust.json").write_text(json.dumps(keys))
    tls = pki.issue("oversight", "commission")
    config = tmp_path / "client.toml"
    config.write_text(
        f'trust_roots = "trust.json"\n[ledger]\naddress = "127.0.0.1:{server.port}"\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        f'authority = "{tls.authority}"\n'
    )
    yield Terminal(config, capsys)
    await server.stop(0)


def _servicers(lies: Lies) -> tuple[LedgerThatLies, QueriesThatLie]:
    return LedgerThatLies(lies), QueriesThatLie(lies)  # type: ignore[abstract]  # others: unimplemented


SHOWN = (("show", ASKED_FOR), ("show", ASKED_FOR, "--json"), ("query",), ("query", "--json"))


@pytest.mark.promise(4)
@pytest.mark.parametrize("command", SHOWN)
async def test_what_is_shown_is_what_was_proved(
    terminal: Terminal, lies: Lies, command: tuple[object, ...]
) -> None:
    """It proves the entry, and tells another story beside it."""
    lies.says = ANOTHER
    said = await terminal.read(*command)
    assert (said.code, ANOTHER.search_id in said.out) == (0, False)
    assert Entry.FromString(LEAVES[ASKED_FOR]).search_id in said.out.replace("\n", "")
    assert LAPD in said.out


def gives_another(lies: Lies) -> None:
    lies.index = 2


def gives_another_and_says_so(lies: Lies) -> None:
    lies.index = lies.says_index = 2


def gives_it_under_another_number(lies: Lies) -> None:
    lies.says_index = 2


@pytest.mark.promise(4)
@pytest.mark.parametrize("lie", [gives_another, gives_another_and_says_so])
@pytest.mark.parametrize("command", [("show", ASKED_FOR), ("prove", ASKED_FOR)])
async def test_the_proof_of_another_entry_proves_nothing(
    terminal: Terminal, lies: Lies, command: tuple[object, ...], lie: Callable[[Lies], None]
) -> None:
    lie(lies)
    said = await terminal.read(*command)
    assert (said.code, "VERIFIED" in said.out) == (1, False)
    assert "the proof is of entry 2" in said.err


@pytest.mark.promise(4)
@pytest.mark.parametrize("lie", [gives_another, gives_it_under_another_number])
async def test_a_row_is_of_the_number_that_was_proved(
    terminal: Terminal, lies: Lies, lie: Callable[[Lies], None]
) -> None:
    lie(lies)
    said = await terminal.read("query")
    assert (said.code, "VERIFIED" in said.err) == (1, False)


@pytest.mark.promise(4)
@pytest.mark.parametrize("command", [("show", 3), ("prove", 3), ("query",)])
async def test_bytes_that_are_no_entry_are_proved_and_shown_as_such(
    terminal: Terminal, lies: Lies, command: tuple[object, ...]
) -> None:
    lies.index, lies.says_index, lies.says = 3, 3, ANOTHER
    said = await terminal.read(*command)
    assert (said.code, ANOTHER.search_id in said.out) == (0, False)
    assert "VERIFIED" in said.out + said.err


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (("--agency", LAPD, "--role", "beneficiary"), 0),
        (("--agency", LAPD), 1),
        ((), 1),
        (("--agency", LAPD, "--role", "beneficiary", "--outcome", "refused"), 1),
    ],
)
async def test_a_table_is_of_the_query_that_was_asked(
    terminal: Terminal, tmp_path: Path, asked: tuple[str, ...], code: int
) -> None:
    """By another one a ledger leaves out what it likes, and all of it verifies."""
    said = await terminal.read("export-table", tmp_path / "table", *asked)
    assert (said.code, "VERIFIED" in said.out) == (code, code == 0)
    assert ("another query" in said.err) == (code == 1)


AUDIT = Path(__file__).parents[1] / "data" / "audit"


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("index", "says"),
    [(OF_ANOTHER_SYSTEM, "is of system 'facefind', not of 'lacris'"), (OF_NO_TIME, "T-000402")],
)
async def test_another_systems_search_accounts_for_no_row(
    terminal: Terminal,
    lies: Lies,
    index: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On record, proved, and given for an answer about this system. Nor does a time stop the comparison."""
    lies.index = lies.says_index = index
    command = ["reconcile", "import", str(AUDIT / "export.csv"), "--mapping"]
    command += [str(AUDIT / "mapping.toml"), "--config", str(terminal.config)]
    assert await asyncio.to_thread(exit_code, command) == 1
    said = capsys.readouterr()
    assert says in said.out + said.err


@pytest.mark.parametrize("size", [65_535, 65_536])
async def test_an_entry_that_no_log_has_is_not_exported(tmp_path: Path, size: int) -> None:
    """Signed, and too long to be in any bundle."""
    leaves = [LEAVES[0], bytes(size)]
    root = tree_of([leaf_hash(leaf) for leaf in leaves], 2).root
    note = sign_checkpoint(Checkpoint(SIGNER.name, 2, root), SIGNER)

    async def given() -> AsyncIterator[bytes]:
        for leaf in leaves:
            yield leaf

    writing = Export(tmp_path / "copy", note, [SIGNER.verifier])
    if size == 65_535:
        assert await writing.write(given(), lambda done, of: None) == 3
        return
    with pytest.raises(VerificationError, match="entry 1 has 65536 bytes"):
        await writing.write(given(), lambda done, of: None)
    assert not (tmp_path / "copy" / "checkpoint").exists()
