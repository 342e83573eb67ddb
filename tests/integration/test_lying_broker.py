"""The command line before a broker that lies: it shows nothing of it, and ends with exit code 1."""

import asyncio
import json
import os
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from countersign.broker.v1 import broker_pb2 as pb
from countersign.broker.v1.broker_pb2_grpc import (
    BrokerServiceServicer,
    add_BrokerServiceServicer_to_server,
)
from countersign.cli.main import exit_code
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.ledger.v1.entry_pb2 import Entry
from countersign.ledger.v1.event_pb2 import DISCHARGE_RESULT_DONE
from countersign.type.v1.decision_pb2 import Decision, Obligation, Receipt
from shared import rpc
from shared.settings import ListenSettings
from shared.signing import SigningKey
from support.doors import LAPD, SERVICE, TRUST_DOMAIN, Pki
from support.forked import COUNTERSIGN, run_forked
from support.orders import OFFICER, SEARCH_ID, SYSTEM
from support.searches import PERMITTED, SearchWorkshop

OTHER_ID = "7d0e4a52-3c5b-4f0e-9a43-6f2d1c8b9e11"
METHODS = (
    *("CheckSearch", "SubmitSearch", "GetSearch", "ListSearches", "CancelSearch"),
    "DischargeObligation",
)
DUTIES = (
    Obligation(kind="report", parameters="outcome:30d", rule_id="LAPD-1", party=LAPD),
    Obligation(kind="log", rule_id="LAPD-1", party=LAPD),
)
CHECK = (
    *("check", "--id", SEARCH_ID, "--own-case", "--case-number", "26-0001"),
    *("--system", "lacris", "--gallery", "lacris-booking", "--nibrs", "120"),
    *("--purpose", "criminal-investigation", "--suspicion", "reasonable-suspicion"),
    *("--severity", "violent-felony", "--provenance", "crime-scene-recording"),
    *("--capture", "stored-video-frame"),
)


class Sent:
    """A search as the broker has it: with the public half of the key to which candidates are sealed."""

    def __init__(self, request: pb.SubmitSearchRequest) -> None:
        self.facts, self.search_id = request.facts, request.facts.search_id
        self.sealed_probe, self.salt = request.sealed_probe, request.salt
        self.answer_key = SimpleNamespace(public_key=request.answer_public_key)


class BrokerThatSays(BrokerServiceServicer):
    """Says of every search what the test has it say."""

    def __init__(self) -> None:
        self.search = pb.Search()
        self.check = pb.CheckSearchResponse()
        self.discharge = pb.DischargeObligationResponse()
        self.permits: SearchWorkshop | None = None

    async def CheckSearch(  # noqa: N802  # named by the contract, like those below
        self, request: pb.CheckSearchRequest, context: rpc.Context
    ) -> pb.CheckSearchResponse:
        """Whatever was asked."""
        return self.check

    async def SubmitSearch(  # noqa: N802
        self, request: pb.SubmitSearchRequest, context: rpc.Context
    ) -> pb.SubmitSearchResponse:
        """Permits and puts on record whatever was asked, with a receipt that holds."""
        assert self.permits is not None
        self.permits.prepared = Sent(request)  # type: ignore[assignment]  # all that it is asked for
        return pb.SubmitSearchResponse(search=self.permits.decide())

    async def GetSearch(  # noqa: N802
        self, request: pb.GetSearchRequest, context: rpc.Context
    ) -> pb.GetSearchResponse:
        """Whatever was asked for."""
        return pb.GetSearchResponse(search=self.search)

    async def CancelSearch(  # noqa: N802
        self, request: pb.CancelSearchRequest, context: rpc.Context
    ) -> pb.CancelSearchResponse:
        """Withdraws nothing."""
        return pb.CancelSearchResponse(search=self.search)

    async def DischargeObligation(  # noqa: N802
        self, request: pb.DischargeObligationRequest, context: rpc.Context
    ) -> pb.DischargeObligationResponse:
        """Whatever was said."""
        return self.discharge

    async def ListSearches(  # noqa: N802
        self, request: pb.ListSearchesRequest, context: rpc.Context
    ) -> pb.ListSearchesResponse:
        """The one search."""
        return pb.ListSearchesResponse(searches=[self.search])


class Terminal:
    """Runs `countersign search` as LAPD's system would."""

    def __init__(self, config: Path, broker: BrokerThatSays, workshop: SearchWorkshop) -> None:
        self.config = config
        self.broker = broker
        self.workshop = workshop

    async def run(self, *arguments: object) -> int:
        """The exit code."""
        command = ["search", *map(str, arguments), "--config", str(self.config)]
        return await asyncio.to_thread(exit_code, command)

    def has_sent(self, workshop: SearchWorkshop) -> None:
        """As if it had submitted this search."""
        workshop.prepared.save(self.config.parent / "state")
        (self.config.parent / "state" / f"{SEARCH_ID}.officer").write_text(OFFICER)


@pytest.fixture(name="terminal")
async def _terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    pki, broker, workshop = Pki(tmp_path), _broker(), SearchWorkshop()
    trust = workshop.trust
    keys = {
        "log_verifier_keys": trust.log_verifier_keys,
        "broker_verify_keys": [b64encode(key).decode() for key in trust.broker_verify_keys],
        "systems": {
            SYSTEM: {
                "sealing_public_key": b64encode(trust.systems[SYSTEM].sealing_public_key).decode(),
                "answer_verify_key": b64encode(trust.systems[SYSTEM].answer_verify_key).decode(),
            }
        },
    }
    (tmp_path / "trust.json").write_text(json.dumps(keys))
    server = await rpc.start_server(
        lambda grpc_server: add_BrokerServiceServicer_to_server(broker, grpc_server),
        services=[SERVICE],
        listen=ListenSettings(
            address="127.0.0.1:0",
            tls=pki.issue("service", "broker", listens=True),
            port_file=tmp_path / "port",
        ),
        trust_domain=TRUST_DOMAIN,
        access={f"/{SERVICE}/{name}": lambda _: True for name in METHODS},
    )
    (tmp_path / "token").write_text("a token")
    tls = pki.issue("agency", LAPD)
    config = tmp_path / "client.toml"
    config.write_text(
        f'agency = "{LAPD}"\ntrust_roots = "trust.json"\nstate = "state"\n'
        f'[broker]\naddress = "127.0.0.1:{server.port}"\n[ledger]\naddress = "127.0.0.1:1"\n'
        f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\n'
        f'authority = "{tls.authority}"\n'
    )
    yield Terminal(config, broker, workshop)
    await server.stop(0)


def _broker() -> BrokerThatSays:
    return BrokerThatSays()  # type: ignore[abstract]  # the others stay unimplemented


def withdrawn(workshop: SearchWorkshop) -> pb.Search:
    """A sound search that was withdrawn."""
    search = workshop.decide()
    end = Entry(schema_epoch=1, search_id=search.search_id)
    end.search_withdrawn.decided_index = search.decision_receipt.index
    return workshop.close(search, end)


ASKED = (("get", SEARCH_ID), ("watch", SEARCH_ID), ("cancel", SEARCH_ID), ("list",))


@pytest.mark.parametrize("command", ASKED)
async def test_what_the_receipts_bear_out_is_shown(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    terminal.broker.search = withdrawn(terminal.workshop)
    terminal.has_sent(terminal.workshop)
    # Exit code 1 says that the search gave no list, except where that was what was asked for.
    assert await terminal.run(*command, "--json") == (command[0] in ("get", "watch"))
    said = json.loads(capsys.readouterr().out)
    assert said.get("searches", [said])[0]["state"] == "SEARCH_STATE_WITHDRAWN"


async def not_believed(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], *command: object
) -> None:
    """Nothing of it is shown; what is wrong is said."""
    assert await terminal.run(*command) == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err


@pytest.mark.parametrize("command", ASKED)
async def test_permit_presented_as_a_refusal(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    terminal.broker.search = terminal.workshop.decide()
    terminal.broker.search.state = pb.SEARCH_STATE_REFUSED
    await not_believed(terminal, capsys, *command)


@pytest.mark.parametrize("command", ASKED)
async def test_withdrawal_with_the_end_of_another_search_and_a_forged_summary(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    search = terminal.broker.search = terminal.workshop.decide()
    search.end_receipt.CopyFrom(withdrawn(terminal.workshop.another(OTHER_ID)).end_receipt)
    search.state = pb.SEARCH_STATE_WITHDRAWN
    search.summary.gallery = "another-gallery"
    await not_believed(terminal, capsys, *command)


@pytest.mark.parametrize("command", ASKED[:-1])
async def test_another_search_than_the_one_asked_for(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    terminal.broker.search = withdrawn(terminal.workshop.another(OTHER_ID))
    await not_believed(terminal, capsys, *command)


@pytest.mark.parametrize("command", ASKED[:-1])
async def test_decision_on_another_request_than_was_sent(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    terminal.has_sent(terminal.workshop)
    terminal.broker.search = withdrawn(terminal.workshop.another(SEARCH_ID))
    await not_believed(terminal, capsys, *command)


async def test_check_with_the_receipt_of_another(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    def another(entry: Entry) -> None:
        entry.search_checked.summary.gallery = "another-gallery"

    terminal.broker.check = terminal.workshop.check(changed=another)
    token = terminal.config.parent / "token"
    await not_believed(terminal, capsys, *CHECK, "--officer-token", token)


def discharged(workshop: SearchWorkshop, search: pb.Search, duty: Obligation) -> Receipt:
    """That this duty of the search was done."""
    entry = Entry(schema_epoch=1, search_id=search.search_id)
    event = entry.obligation_discharged
    event.decided_index = search.decision_receipt.index
    event.origin_agency = search.summary.origin_agency
    event.kind, event.rule_id, event.party = duty.kind, duty.rule_id, duty.party
    event.result = DISCHARGE_RESULT_DONE
    return workshop.log.receipt(workshop.log.append(entry))


async def test_duty_done_by_the_receipt_of_another_duty_or_of_another_search(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop, broker = terminal.workshop, terminal.broker
    decision = Decision()
    decision.CopyFrom(PERMITTED)
    decision.obligations.extend(DUTIES)
    mine = broker.search = workshop.decide(decision)
    other = workshop.another(OTHER_ID).decide(decision)
    report = ("discharge", SEARCH_ID, "report", "--officer-token", terminal.config.parent / "token")
    broker.discharge.receipt.CopyFrom(discharged(workshop, mine, DUTIES[0]))
    broker.discharge.existing = True
    assert await terminal.run(*report, "--json") == 0
    assert json.loads(capsys.readouterr().out)["existing"]
    for search, duty in ((mine, DUTIES[1]), (other, DUTIES[0])):
        broker.discharge.receipt.CopyFrom(discharged(workshop, search, duty))
        await not_believed(terminal, capsys, *report)
    # Of one piece, but nobody asked for it.
    broker.search = other
    await not_believed(terminal, capsys, *report)


@pytest.mark.parametrize("command", [CHECK, ("discharge", SEARCH_ID, "report")])
async def test_what_is_no_text_is_a_mistake_of_who_typed_it(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """A byte that is no UTF-8, as of another alphabet's terminal, reaches Python as half a pair."""
    decision = Decision()
    decision.CopyFrom(PERMITTED)
    decision.obligations.extend(DUTIES)
    terminal.broker.search = terminal.workshop.decide(decision)
    token = ("--officer-token", terminal.config.parent / "token")
    code = await terminal.run(*command, *token, "--narrative", os.fsdecode(b"Br\xfccke"))
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert "UTF-8" in captured.err


async def test_a_load_whose_forbidden_search_is_permitted_ends_with_1_whatever_the_bounds(
    terminal: Terminal,
) -> None:
    """All the rest of it holds: the receipt, the binding to what was sent, the decision on record."""
    terminal.broker.permits = terminal.workshop
    provider = DevelopmentIdentityProvider("https://idp.example.org", SigningKey.generate())
    tokens = terminal.config.parent / "tokens"
    tokens.write_text(provider.token(OFFICER, OTHER_ID) + "\n")
    facts = [one for one in CHECK[1:] if one not in ("--id", SEARCH_ID)]
    given = (
        *("bench", *facts, "--config", str(terminal.config), "--officer-tokens", str(tokens)),
        *("--mix", "forbidden=1", "--in-flight", "1", "--errors-max", "100", "--yes", "--json"),
    )
    folder, needs = terminal.config.parent, ["countersign.cli.bench"]

    def bench() -> subprocess.CompletedProcess[str]:
        return run_forked(
            COUNTERSIGN, *given, folder=folder, environment=dict(os.environ), needs=needs
        )

    said = await asyncio.to_thread(bench)
    assert said.returncode == 1, said.stderr
    told = json.loads(said.stdout)
    assert told["kinds"]["forbidden"]["errors"] == {"FORBIDDEN_PERMITTED": 1}
    assert "1 searches were permitted that every party must refuse" in told["bounds_broken"]
