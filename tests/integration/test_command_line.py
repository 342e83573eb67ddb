"""The command line against a running installation: results, exit codes, and what it says of errors."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from countersign.cli.main import exit_code
from countersign.installation.bundled import probes_folder
from support.installations import BURBANK, LAPD, InstallationUnderTest
from support.interrupting import interrupted_after

PROBE = str(probes_folder() / "id07_2.jpg")
OFFICER = ("--officer", "lapd-40123")
CASE = (
    *("--system", "lacris", "--gallery", "lacris-booking"),
    *("--purpose", "criminal-investigation", "--suspicion", "reasonable-suspicion"),
    *("--severity", "violent-felony", "--nibrs", "120", "--case-number", "26-0001"),
    *("--provenance", "crime-scene-recording", "--capture", "stored-video-frame"),
)


class Said:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Countersign = Callable[..., Said]


@pytest.fixture
def countersign(
    installation: InstallationUnderTest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Countersign:
    """Runs a command as LAPD's system, or another agency's."""

    def run(*arguments: str | Path, agency: str = LAPD) -> Said:
        monkeypatch.setenv("COUNTERSIGN_CONFIG", str(installation.client(agency)))
        code = exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def test_a_permitted_search_shows_candidates_and_its_receipts_verify(
    countersign: Countersign, installation: InstallationUnderTest, tmp_path: Path
) -> None:
    said = countersign(
        *("search", "submit", PROBE, *OFFICER, "--own-case", *CASE),
        *("--candidates", "3", "--receipts", tmp_path, "--json"),
    )
    assert said.code == 0, said.err
    assert said.document["state"] == "SEARCH_STATE_ANSWERED"
    assert len(said.document["candidate_list"]["candidates"]) == 3
    proofs = sorted(tmp_path.glob("*.tlog-proof"))
    assert len(proofs) == 2
    key = installation.layout.keys.ledger_vkey
    assert countersign("ledger", "verify", *proofs, "--key", key).code == 0
    proofs[0].with_suffix(".leaf").write_bytes(b"forged")
    assert countersign("ledger", "verify", *proofs, "--key", key).code == 1


def test_a_refused_search_says_who_by_which_rule_and_where_it_is_written(
    countersign: Countersign,
) -> None:
    said = countersign("search", "submit", PROBE, *OFFICER, "--beneficiary", BURBANK, *CASE)
    assert said.code == 1
    assert f"Refused by {LAPD}." in said.out
    assert "LAPD-3" in said.out
    assert "13 Nov" in said.out
    assert not said.err


def test_a_command_does_not_listen_where_the_services_are_told_to(
    countersign: Countersign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment of a shell is the services' as well; no address could be taken twice."""
    monkeypatch.setenv("COUNTERSIGN_TELEMETRY__SCRAPE", "an address on which nobody can listen")
    assert countersign("search", "list").code == 0


def test_a_result_is_not_mixed_with_what_telemetry_shows(
    installation: InstallationUnderTest,
) -> None:
    # A process of its own: telemetry is switched on once.
    program = Path(sys.executable).with_name("countersign")
    shown = {"COUNTERSIGN_TELEMETRY__EXPORTER": "console"}
    listing = (program, "system", "list", "--json", "--config", installation.client(LAPD))
    done = subprocess.run(listing, env=os.environ | shown, capture_output=True, check=True)
    assert json.loads(done.stdout)["systems"]
    assert b'"name": "countersign.system.list"' in done.stderr


def test_a_check_says_what_would_cure_the_refusal(countersign: Countersign) -> None:
    said = countersign("search", "check", "--officer", "lapd-40777", "--own-case", *CASE)
    assert said.code == 1
    assert "What would cure it" in said.out
    assert "certificate" in said.out
    assert countersign("search", "check", *OFFICER, "--own-case", *CASE).code == 0


def test_circumstances_are_on_record_as_they_were_stated(countersign: Countersign) -> None:
    said = countersign(
        *("search", "submit", PROBE, *OFFICER, "--own-case", *CASE, "--json"),
        *("--route", "direct", "--protected-basis", "none", "--unsolicited", "--no-consent"),
        *("--instrument", "search-warrant", "--instrument-status", "granted"),
        *("--instrument-expires", "2026-12-01", "--instrument-uses", "2"),
        *("--instrument-number", "26-SW-17", "--no-emergency"),
    )
    assert said.code == 0, said.err
    assert said.document["summary"]["circumstances"] == {
        "route": "REQUEST_ROUTE_DIRECT",
        "protected_basis": "PROTECTED_BASIS_NONE",
        "unsolicited": True,
        "consent_given": False,
        "instrument": {
            "kind": "INSTRUMENT_KIND_SEARCH_WARRANT",
            "status": "INSTRUMENT_STATUS_GRANTED",
            "expires_at": "2026-12-01T00:00:00Z",
            "uses_left": 2,
        },
        "emergency": {},
    }
    assert "26-SW-17" not in said.out


@pytest.mark.parametrize(
    "options",
    [
        ("--instrument-status", "granted"),
        ("--instrument", "subpoena", "--instrument-uses", "1", "--instrument-unlimited"),
        ("--instrument", "subpoena", "--instrument-expires", "2026-12-01",
         "--instrument-never-expires"),
        ("--emergency-basis", "a child was taken"),
        ("--emergency", "--emergency-began", "yesterday"),
        ("--route", "by-the-back-door"),
    ],
)  # fmt: skip
def test_circumstances_that_contradict_themselves_are_a_usage_error(
    countersign: Countersign, options: tuple[str, ...]
) -> None:
    said = countersign("search", "check", *OFFICER, "--own-case", *CASE, *options)
    assert said.code == 2, said.err


def test_a_missing_beneficiary_is_not_filled_in(countersign: Countersign) -> None:
    said = countersign("search", "check", *OFFICER, *CASE, "--json")
    assert said.code == 1
    assert "BENEFICIARY_UNKNOWN" in said.out


def test_the_same_id_is_the_same_search(countersign: Countersign) -> None:
    search_id = str(uuid4())
    submit = ("search", "submit", PROBE, *OFFICER, "--own-case", *CASE, "--id", search_id, "--json")
    first, second = countersign(*submit), countersign(*submit)
    assert second.code == 0, second.err
    receipts = [said.document["end_receipt"].get("index") for said in (first, second)]
    assert receipts[0] == receipts[1]


def test_a_search_waits_for_its_connector_and_can_be_withdrawn(
    countersign: Countersign, installation: InstallationUnderTest
) -> None:
    connector = installation.processes["connector-lacris"]
    connector.kill()
    try:
        submit = ("search", "submit", PROBE, *OFFICER, "--own-case", *CASE, "--no-wait", "--json")
        said = countersign(*submit)
        assert said.code == 0, said.err
        search_id = said.document["search_id"]
        assert said.document["state"] == "SEARCH_STATE_PENDING"
        waited = countersign("search", "watch", search_id, "--timeout", "1")
        assert (waited.code, f"search {search_id} has not ended" in waited.err) == (3, True)
        assert countersign("search", "cancel", search_id).code == 0
        assert "withdrawn" in countersign("search", "get", search_id).out
        other = countersign(*submit).document["search_id"]
        with interrupted_after(installation, 0):
            stopped = countersign(*submit[:-2])
        assert "It is the same search with: --id " in stopped.err
    finally:
        connector.start()
    assert countersign("search", "watch", other).code == 0
    late = countersign("search", "cancel", other)
    assert late.code == 1
    assert late.out.startswith("Not withdrawn: the search had ended before.\n")


def test_the_candidates_open_again_only_where_the_search_was_submitted(
    countersign: Countersign, installation: InstallationUnderTest
) -> None:
    said = countersign("search", "submit", PROBE, *OFFICER, "--own-case", *CASE, "--json")
    search_id = said.document["search_id"]
    assert "Investigative lead only" in countersign("search", "get", search_id).out
    (installation.layout.client_state(LAPD) / f"{search_id}.json").unlink()
    elsewhere = countersign("search", "get", search_id)
    assert elsewhere.code == 0
    assert "open only where" in elsewhere.out


def test_an_agency_sees_its_own_searches_only(countersign: Countersign) -> None:
    said = countersign(
        "search", "submit", PROBE, *OFFICER, "--beneficiary", BURBANK, *CASE, "--json"
    )
    search_id = said.document["search_id"]
    assert search_id in countersign("search", "list").out
    others = countersign("search", "list", "--json", agency=BURBANK)
    assert search_id not in others.out
    assert countersign("search", "get", search_id, agency=BURBANK).code == 3


def test_a_token_from_a_file_serves_its_search_only(
    countersign: Countersign, tmp_path: Path
) -> None:
    search_id = str(uuid4())
    token = tmp_path / "token"
    issue = ("officer", "token", "--officer", "lapd-40123", "--search-id", search_id)
    token.write_text(countersign(*issue).out)
    with_token = ("search", "check", "--officer-token", token, "--own-case", *CASE)
    assert countersign(*with_token, "--id", search_id).code == 0
    said = countersign(*with_token, "--id", str(uuid4()))
    assert said.code == 3
    assert "OFFICER_TOKEN_UNBOUND" in said.err
    assert token.read_text().strip() not in said.err


def test_another_agencys_officer_is_turned_away(countersign: Countersign) -> None:
    said = countersign("search", "check", "--officer", "burbank-117", "--own-case", *CASE)
    assert said.code == 3
    assert "OFFICER_TOKEN_FOREIGN" in said.err


def test_systems_are_listed_with_their_keys_compared(countersign: Countersign) -> None:
    said = countersign("system", "list")
    assert said.code == 0
    assert said.out.count("as trusted") == 2
    systems = countersign("system", "list", "--json").document["systems"]
    assert [system["id"] for system in systems] == ["facefind", "lacris"]


def test_a_field_that_breaks_a_rule_is_named(countersign: Countersign) -> None:
    said = countersign("search", "check", *OFFICER, "--own-case", *CASE, "--system", "No Such")
    assert said.code == 3
    assert "facts.system" in said.err


def test_an_id_that_was_used_for_other_facts_keeps_its_key(countersign: Countersign) -> None:
    search_id = str(uuid4())
    submit = ("search", "submit", PROBE, *OFFICER, "--own-case", *CASE, "--id", search_id)
    assert countersign(*submit, "--wait").code == 0
    said = countersign(*submit, "--narrative", "Another story.")
    assert (said.code, "leave --id out" in said.err) == (2, True)
    again = countersign("search", "get", search_id)
    assert (again.code, "Investigative lead only" in again.out) == (0, True)


def test_receipts_that_cannot_be_saved_stop_the_search_before_it_is_sent(
    countersign: Countersign, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    search_id = str(uuid4())
    submit = ("search", "submit", PROBE, *OFFICER, "--own-case", *CASE, "--id", search_id)
    said = countersign(*submit, "--receipts", tmp_path / "file" / "receipts")
    assert (said.code, "--receipts" in said.err) == (2, True)
    assert "cannot be written" in said.err
    assert countersign("search", "get", search_id).code == 3


def test_an_unknown_system_is_said_once(countersign: Countersign) -> None:
    said = countersign("search", "check", *OFFICER, "--own-case", *CASE, "--system", "nowhere")
    assert said.code == 1
    assert said.out.count("UNKNOWN_SYSTEM: There is no such system.") == 1
    assert "could not be applied" not in said.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "check", *CASE, "--own-case"),
        ("search", "check", *CASE, *OFFICER, "--own-case", "--beneficiary", BURBANK),
        ("search", "check", *CASE, *OFFICER, "--purpose", "curiosity"),
        ("search", "submit", __file__, *CASE, *OFFICER, "--own-case"),
        ("search", "submit", "no-such-picture.jpg", *CASE, *OFFICER, "--own-case"),
        ("search", "list", "--config", "no-such-file.toml"),
        ("search", "list", "--config", __file__),
        ("nonsense",),
    ],
)
def test_what_cannot_be_understood_exits_2_and_says_why(
    countersign: Countersign, arguments: tuple[str, ...]
) -> None:
    said = countersign(*arguments)
    assert said.code == 2
    assert "Error:" in said.err
    assert not said.out


def test_a_server_that_is_not_there_exits_3_and_says_what_to_do(
    countersign: Countersign, installation: InstallationUnderTest, tmp_path: Path
) -> None:
    config = installation.client(LAPD)
    text = config.read_text().replace("../", f"{config.parent.parent}/")
    elsewhere = tmp_path / "client.toml"
    elsewhere.write_text(text.replace(f":{installation.ports.broker}", ":1"))
    said = countersign("system", "list", "--config", elsewhere)
    assert said.code == 3
    assert "UNREACHABLE" in said.err
    assert "countersign up" in said.err
    submit = ("search", "submit", PROBE, *OFFICER, "--own-case", *CASE)
    said = countersign(*submit, "--config", elsewhere)
    retry = re.search(r"the same search with: (--id) ([0-9a-f-]{36})\n", said.err)
    assert retry is not None, said.err
    done = countersign(*submit, *retry.groups(), "--json")
    assert (done.code, done.document["search_id"]) == (0, retry[2])


def test_a_load_is_measured_and_marked_on_the_record(
    countersign: Countersign, tmp_path: Path
) -> None:
    case = tuple(one for one in CASE if one not in ("--case-number", "26-0001"))
    load = ("bench", *OFFICER, "--own-case", *case, "--mix", "search=1,check=1,forbidden=1,read=1")
    unasked = countersign(*load, "--rate", "5")
    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert "people who are not sought" in unasked.err
    dry = countersign("bench", *OFFICER, "--own-case", *case, "--mix", "check=1", "--rate", "5")
    assert dry.code == 2
    assert "sought" not in dry.err
    bounds = ("--searches", "4", "--yes", "--errors-max", "0")
    said = countersign(*load, *bounds, "--rate", "20", "--json", "--output", tmp_path / "out.json")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "out.json").read_text()) == said.document
    kinds = said.document["kinds"]
    assert {kind: told["right"] for kind, told in kinds.items()} == dict.fromkeys(
        ("search", "check", "forbidden", "read"), 1
    )
    assert said.document["latency_ms"]["search answered"]["count"] == 1
    assert said.document["asked"]["case_number"] == "LOAD-TEST"
    # Nobody is that quick; and what is refused is not measured at all.
    load += ("--probe", PROBE, "--mix", "search=1")
    late = countersign(*load, "--yes", "--searches", "1", "--in-flight", "4", "--p99-max", "0.001")
    assert late.code == 1
    assert "Not kept: p99 of a search" in late.out
    refused = countersign(*load[:3], *load[4:], *bounds, "--rate", "5")
    assert refused.code == 1
    assert "Nothing is measured" in refused.err


def test_a_load_that_is_interrupted_tells_what_it_measured(
    countersign: Countersign, installation: InstallationUnderTest
) -> None:
    with interrupted_after(installation, 5):
        load = ("bench", *OFFICER, "--own-case", *CASE, "--in-flight", "2", "--duration", "3600")
        said = countersign(*load, "--probe", PROBE, "--mix", "check=1", "--yes", "--json")
    assert said.code == 0, said.err
    assert said.document["stopped"]
    assert said.document["kinds"]["check"]["right"] >= 3
