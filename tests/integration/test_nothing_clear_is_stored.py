"""Reads every stored byte after real searches: no picture, no candidate, and no name in public.

The first search's probe is a JPEG that bears a random mark, sealed as it is; the second's is cleaned
and sealed by the client. While the connector is down their orders lie on the bus; after it they are
answered. What is looked for is every form that a probe or a candidate list has on its way, and each
search for bytes is shown to find what must be there. The same installation has a witness and measures all
that it can: what it tells, and what it shows to anybody, is looked at as well, and last how a connector does
that demands this witness.
"""

import asyncio
import json
import os
import random
import sqlite3
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from connector.answering import NOTICE
from countersign.client import ClientSettings, OpenedAnswer
from countersign.client.ledger import LedgerClient
from countersign.client.ledger_query import LedgerQueryClient
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.ledger_pb2 import ListEntriesRequest
from countersign.ledger.v1.query_pb2 import QueryEntriesRequest
from countersign.type.v1.circumstances_pb2 import INSTRUMENT_KIND_SEARCH_WARRANT
from countersign.type.v1.decision_pb2 import Obligation
from shared.errors import Conflict, NotFound, Unavailable
from shared.images import clean, encode_within
from shared.sealing import SEALED_BYTES_MAX
from support.agencies import DECIDED_AND_ANSWERED, AgencyAtWork, at_work, stopped
from support.brokers import OFFICER, own_case
from support.installations import LAPD, InstallationUnderTest
from support.pictures import probe
from support.scrapes import (
    every_expression,
    measured,
    missing,
    telling_all,
    until_told,
)
from support.sources import listed
from support.waiting import until
from tlog.policy import Judged, Policy

CASE: Final = "26-CASE-THAT-NOBODY-MAY-READ"
NARRATIVE: Final = "A narrative, in these very words, that nobody may read."
DOCKET: Final = "26-SW-THAT-NOBODY-MAY-READ"
BASIS: Final = "The facts of an emergency that nobody may read."
MARK_BYTES: Final = 64
NEEDLE_BYTES: Final = 40
NEEDLES_PER_FORM: Final = 24
DISTINCT_MIN: Final = 20
"""Fewer different bytes are a flat background, which any file may hold by chance."""
SEED: Final = 20201113

JPEG_START: Final = bytes.fromhex("ffd8ffe000104a464946")
"""The magic and the first segment's head: three bytes alone stand in any megabyte of ciphertext."""
PNG_START: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def marked(jpeg: bytes, mark: bytes) -> bytes:
    """The JPEG with a comment, which decoders pass over."""
    comment = b"\xff\xfe" + (len(mark) + 2).to_bytes(2) + mark
    return jpeg[:2] + comment + jpeg[2:]


def pieces(content: bytes) -> list[bytes]:
    """Some of the content's bytes from everywhere in it, but for flat ones."""
    chance = random.Random(SEED)
    found: list[bytes] = []
    while len(found) < NEEDLES_PER_FORM:
        at = chance.randrange(len(content) - NEEDLE_BYTES)
        piece = content[at : at + NEEDLE_BYTES]
        if len(set(piece)) >= DISTINCT_MIN:
            found.append(piece)
    return found


def spellings(needle: bytes) -> list[bytes]:
    """The bytes, and what a log or a JSON file would make of them."""
    hexadecimal = needle.hex().encode()
    # Base64 depends on where in a group of three the bytes begin; the ends mix with what is beside.
    base64 = [b64encode(bytes(before) + needle)[4:-4] for before in range(3)]
    url_safe = [one.translate(bytes.maketrans(b"+/", b"-_")) for one in base64]
    in_json = [
        json.dumps(text, ensure_ascii=False)[1:-1].encode()
        for text in (repr(needle)[2:-1], needle.decode("latin-1"))
    ]
    return [needle, hexadecimal, hexadecimal.upper(), *base64, *url_safe, *in_json]


def forms_of(picture: bytes) -> dict[str, list[bytes]]:
    """Every form that a picture has between the officer's file and the matcher."""
    cleaned = clean(picture)
    mirrored = bytearray(cleaned.pixels)
    mirrored[0::3], mirrored[2::3] = cleaned.pixels[2::3], cleaned.pixels[0::3]
    return {
        "file": pieces(picture),
        "cleaned file": pieces(encode_within(cleaned, SEALED_BYTES_MAX)),
        "pixels": pieces(cleaned.pixels),
        "pixels as OpenCV has them": pieces(bytes(mirrored)),
        "digest of the file": [cleaned.file_sha256],
        "digest of the pixels": [cleaned.pixels_sha256],
    }


def forms_of_candidates(opened: OpenedAnswer) -> dict[str, list[bytes]]:
    """What only the requester may see."""
    found = opened.candidates
    assert found is not None
    assert found.candidates
    identifiers = [candidate.candidate_id for candidate in found.candidates]
    return {
        "candidate's identifier": [one.encode() for one in identifiers],
        "candidate's identifier in bytes": [bytes.fromhex(one) for one in identifiers],
        "candidate": [one.SerializeToString(deterministic=True) for one in found.candidates],
        "notice on the list": [NOTICE[:NEEDLE_BYTES].encode()],
        "digest of the probe": [found.probe_sha256, found.clean_pixels_sha256],
    }


class Stored:
    """Every file in which a process of the installation keeps anything."""

    def __init__(self, installation: InstallationUnderTest) -> None:
        self._installation = installation
        layout = installation.layout
        self.folders = (layout.ledger.parent.parent, layout.log("x").parent)
        self.files = {
            path: path.read_bytes()
            for folder in self.folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def below(self, folder: Path) -> list[Path]:
        """The files there."""
        return [path for path in self.files if path.is_relative_to(folder)]

    def holding(self, needles: Iterable[bytes]) -> set[str]:
        """Files with any of these bytes."""
        sought = [spelling for needle in needles for spelling in spellings(needle)]
        return {
            str(path.relative_to(self._installation.layout.root))
            for path, content in self.files.items()
            if any(needle in content for needle in sought)
        }

    def open_for_writing(self) -> set[Path]:
        """Files that the processes have open for writing now."""
        return {
            path
            for process in self._installation.processes.values()
            for path in _open_for_writing(process.pid)
        }


def _open_for_writing(pid: int | None) -> Iterator[Path]:
    assert pid is not None
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        path = descriptor.readlink()
        about = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
        flags = int(about.split("flags:")[1].split()[0], base=8)
        if path.is_file() and flags & (os.O_WRONLY | os.O_RDWR):
            yield path


def assert_blind(stored: Stored, forms: Mapping[str, list[bytes]]) -> None:
    """Nothing stored holds any of these."""
    found = {form: where for form, needles in forms.items() if (where := stored.holding(needles))}
    assert not found


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstallationUnderTest]:
    """An installation in which nothing else was searched, and which says all that it can of itself."""
    folder = tmp_path_factory.mktemp("nothing-clear") / "data"
    made = InstallationUnderTest(folder, witness=True)
    with telling_all(), made:
        yield made


@pytest.mark.promise(6)
async def test_no_picture_and_no_candidate_is_stored_anywhere(own: InstallationUnderTest) -> None:
    mark = random.Random(SEED).randbytes(MARK_BYTES)
    as_it_is, to_be_cleaned = marked(probe(7), mark), marked(probe(8), mark)
    forms = {
        "mark": [mark],
        "start of a JPEG": [JPEG_START],
        "start of a PNG": [PNG_START],
        **{f"first {form}": of for form, of in forms_of(as_it_is).items()},
        **{f"second {form}": of for form, of in forms_of(to_be_cleaned).items()},
    }
    async with at_work(own, LAPD) as lapd:
        first = lapd.sealed(own_case(case_number=CASE, narrative=NARRATIVE), as_it_is)
        second = lapd.client.prepare(own_case(), to_be_cleaned)
        with stopped(own.processes["connector-lacris"]):
            for prepared in (first, second):
                await lapd.submit(prepared)
            waiting = Stored(own)
        for prepared in (first, second):
            _, opened = await lapd.ended(prepared)
            forms |= {
                f"{form} of {prepared.search_id}": of
                for form, of in forms_of_candidates(opened).items()
            }
    # The bytes that may be there are found, so that those below are not missed: sealed, on the bus.
    for prepared in (first, second):
        where = waiting.holding(pieces(prepared.sealed_probe.ciphertext))
        assert where
        assert all(name.startswith("data/streams/") for name in where)
    for stored in (waiting, Stored(own)):
        assert stored.below(own.layout.streams)
        assert stored.below(own.layout.ledger.parent)
        assert stored.below(own.layout.connector_state("lacris"))
        assert_blind(stored, forms)
    written = stored.open_for_writing()
    assert own.layout.ledger in written
    assert written <= set(stored.files), "not all that is stored was read"


@pytest.mark.promise(5)
async def test_the_public_record_and_the_logs_name_nobody(own: InstallationUnderTest) -> None:
    secrets = [one.encode() for one in (OFFICER, CASE, NARRATIVE, DOCKET, BASIS)]
    async with at_work(own, LAPD) as lapd:
        # By every way to the record: a dry run, a search, a duty that was done, a refusal, and calls that are
        # turned away.
        token, search_id = await _make_entries(lapd)
        wanted = ListEntriesRequest()
        leaves = [record.leaf async for record in lapd.ledger.entries(wanted)]
    assert len(leaves) >= 5
    kinds = (Entry.FromString(leaf).search_decided.summary.circumstances for leaf in leaves)
    assert INSTRUMENT_KIND_SEARCH_WARRANT in {one.instrument.kind for one in kinds}, "it is counted"
    assert not [leaf for leaf in leaves if any(secret in leaf for secret in secrets)]
    with closing(sqlite3.connect(f"file:{own.layout.ledger}?mode=ro", uri=True)) as database:
        (tables,) = zip(
            *database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"), strict=True
        )
        holding = {
            table
            for table in tables
            for row in database.execute(f"SELECT * FROM {table}")
            for value in row
            if _holds(value, secrets)
        }
        ((openings,),) = database.execute("SELECT count(*) FROM openings")
    assert openings > len(leaves), "kept apart, and there to be disclosed"
    assert not holding, "the openings are encrypted"
    stored = Stored(own)
    assert stored.holding([leaves[0]]), "the search for bytes would find it"
    # Spans are written beside the logs here: those of this search have come.
    assert await until_told(own, "connector-lacris", '"name": "connector.run"')
    stored = Stored(own)
    for secret in [*secrets, token.encode(), token.split(".")[1].encode()]:
        assert not {name for name in stored.holding([secret]) if "ledger" in name}
        assert not {name for name in stored.holding([secret]) if name.startswith("log/")}
    for process, text in measured(own).items():
        assert "countersign_" in text, process
        for secret in [*secrets, token.encode(), search_id.encode(), OFFICER.encode()]:
            assert secret.decode() not in text, process


async def test_what_alerts_and_dashboards_ask_for_is_measured(own: InstallationUnderTest) -> None:
    """After the searches above: each metric by the name, and with the labels, that somebody asks for."""
    settings = ClientSettings.load(own.layout.oversight_client)
    async with LedgerQueryClient.connect(settings) as client:
        await client.query(QueryEntriesRequest())  # for which the index is made
    await shown(own)  # strangers' reading is measured too
    await until(lambda: _duties_counted(own))
    asked = [
        one
        for one in every_expression()
        if not one.foreign and not one.on_record and not one.watching
    ]
    assert len(asked) > 50
    told = measured(own)
    offenders = missing(asked, "\n".join(told.values()))
    assert not offenders, listed(offenders)
    # What was never so is 0 and not absent: an increase over days lacks no first one.
    assert 'countersign_decisions_total{outcome="referred"} 0' in told["broker"]


async def _duties_counted(own: InstallationUnderTest) -> bool:
    """The ledger looks for the first time when its index would start by itself."""
    return "countersign_ledger_obligations_open{" in measured(own)["ledger"]


async def shown(one: InstallationUnderTest) -> Judged:
    """The checkpoint on the public port, judged by the policy that the installation wrote."""
    policy = Policy.parse(one.layout.policy.read_bytes())
    url = f"http://127.0.0.1:{one.ports.ledger_http}/checkpoint"

    async def with_quorum() -> str | None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text() if response.status == 200 else None

    return policy.judge(await until(with_quorum))


async def test_public_checkpoint_is_cosigned_and_the_witness_remembers(
    own: InstallationUnderTest,
) -> None:
    settings = ClientSettings.load(own.layout.oversight_client)

    async def newest() -> Judged | None:
        async with LedgerClient.connect(settings) as client:
            pending = (await client.checkpoint()).checkpoint
        found = await shown(own)
        return found if found.checkpoint.text in pending else None

    first = await until(newest)
    assert first.quorum
    assert set(first.cosigned) == {"up"}

    own.layout.witness_begun.write_bytes(b"")  # as the supervisor does
    await asyncio.to_thread(own.processes["witness"].stop)
    own.processes["witness"].start()
    assert "ready" in own.processes["witness"].log
    assert (await shown(own)).quorum


async def test_a_connector_that_demands_the_witness_runs_what_it_has_cosigned_and_nothing_else(
    own: InstallationUnderTest,
) -> None:
    connector, broker = own.processes["connector-lacris"], own.processes["broker"]
    with stopped(connector):
        _configure(own, "connector-lacris", f'witnesses = "{own.layout.policy}"')
    async with at_work(own, LAPD) as lapd:
        unwitnessed = lapd.sealed(own_case(), probe(7))
        await lapd.submit(unwitnessed)
        ended = await lapd.client.wait(unwitnessed.search_id)
        assert lapd.end_of(ended).search_failed.check == "RECEIPT_UNWITNESSED"
    with stopped(broker):
        _configure(own, "broker", "witnesses_wait = 10")
    async with at_work(own, LAPD) as lapd:
        witnessed, waiting = (lapd.sealed(own_case(), probe(number)) for number in (7, 8))
        await lapd.submit(witnessed)
        assert (await lapd.ended(witnessed))[1].candidates
        with stopped(own.processes["witness"]):
            _configure(own, "broker", "witnesses_wait = 0.2", instead_of="witnesses_wait = 10")
            broker.stop()
            broker.start()
            with pytest.raises(Unavailable) as raised:
                await lapd.submit(waiting)
            assert raised.value.reason == "DECISION_UNWITNESSED"
        await lapd.submit_until_taken(waiting)
        assert (await lapd.ended(waiting))[1].candidates
        assert await lapd.kinds(waiting.search_id) == DECIDED_AND_ANSWERED


def _configure(
    own: InstallationUnderTest, process: str, line: str, instead_of: str | None = None
) -> None:
    file = own.layout.config(process)
    text = file.read_text()
    file.write_text(f"{line}\n{text}" if instead_of is None else text.replace(instead_of, line))


def _holds(value: object, secrets: Iterable[bytes]) -> bool:
    as_bytes = value if isinstance(value, bytes) else str(value).encode()
    return any(secret in as_bytes for secret in secrets)


async def _make_entries(lapd: AgencyAtWork) -> tuple[str, str]:
    """Gives an officer token that was shown, and the id of a search that ran."""
    facts = own_case(
        case_number=CASE, narrative=NARRATIVE, instrument_number=DOCKET, emergency_basis=BASIS
    )
    facts.circumstances.instrument.kind = INSTRUMENT_KIND_SEARCH_WARRANT
    facts.circumstances.emergency.claimed = True
    token = lapd.provider.token(OFFICER, facts.search_id)
    await lapd.client.check(facts, token)
    prepared = lapd.sealed(facts, probe(7))
    await lapd.submit(prepared)
    search, _ = await lapd.ended(prepared)
    duty = search.decision.obligations[0]
    await lapd.client.discharge(facts.search_id, duty, token, NARRATIVE)
    with pytest.raises(NotFound):
        await lapd.client.discharge(
            facts.search_id, Obligation(kind="none", rule_id="none", party="none"), token, NARRATIVE
        )
    refused = own_case(case_number=CASE, narrative=NARRATIVE, beneficiary_agency=None)
    await lapd.submit(lapd.sealed(refused, probe(7)))
    other = own_case(search_id=facts.search_id, case_number=CASE, narrative=NARRATIVE + "!")
    with pytest.raises(Conflict):
        await lapd.submit(lapd.sealed(other, probe(7)))
    return token, facts.search_id
