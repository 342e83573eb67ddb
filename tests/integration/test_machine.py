"""One machine as for production: prepared by the command, run by the units' own command lines and filters."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from countersign.cli.main import exit_code
from countersign.installation import bundled
from countersign.installation.certificates import TRUST_DOMAIN
from countersign.installation.directives import publish_directives
from countersign.installation.layout import Layout
from countersign.installation.machine import Answers, Connector, Machine, prepare_machine
from countersign.installation.parts import Door, GrpcDoor, NatsDoor, Part
from countersign.installation.ports import Ports, address
from countersign.installation.prepare import PROBER, ensure_documents, prepare, systems_run_here
from support.installations import LAPD, ProcessUnderTest
from support.sources import ROOT
from support.systemd_units import has_systemd, unit

SYSTEM = "lacris"
PAGE = (ROOT / "docs" / "operating-one-machine.md").read_text()
KEYS = {"note.pem": "ledger_note", "order.pem": "broker_order"}


class MachineUnderTest:
    """Everybody's keys are in `parties`, as an authority and agencies elsewhere would have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parties = Layout(folder / "parties")
        registry = ensure_documents(self.parties)
        self.ports = Ports.free(systems_run_here(registry))
        prepare(self.parties, registry, self.ports)
        self.machine = Machine(folder / "etc", folder / "var")
        self._bring_keys()
        answers = Answers(
            trust_domain=TRUST_DOMAIN,
            hosts=("faces.example",),
            registry=self.parties.registry,
            directives=self.parties.directives,
            trust_roots=self.parties.trust_roots,
            connector=Connector(SYSTEM, self._gallery(), 0.78),
        )
        self.prepared = prepare_machine(self.machine, answers, self.ports)
        self._sign()
        for state in ("nats", "ledger", "ledger-apart", "connector"):
            (self.machine.state / state).mkdir(parents=True)
        self.running: dict[str, ProcessUnderTest] = {}

    def _gallery(self) -> Path:
        """A few of the drawn faces: reading all takes longer than the search."""
        pictures = self.folder / "pictures"
        pictures.mkdir()
        for picture in sorted(bundled.gallery_folder().glob("id1[01]_*.jpg")):
            shutil.copy(picture, pictures)
        return pictures

    def _bring_keys(self) -> None:
        """Keys that are there are used: the agencies' trust roots know these already."""
        keys = self.parties.keys
        brought = {name: getattr(keys, one) for name, one in KEYS.items()}
        brought |= {"answer.pem": keys.answer(SYSTEM), "sealing.pem": keys.sealing(SYSTEM)}
        for name, path in brought.items():
            self.machine.key(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.machine.key(name))

    def _sign(self) -> None:
        """As the page says it, by the authority."""
        tls = self.machine.tls("nats").authority.parent
        shutil.copy(self.parties.authority, tls / "authority.pem")
        assert "-copy_extensions copyall" in PAGE
        for request in tls.glob("*.csr"):
            subprocess.run(
                [
                    *("openssl", "x509", "-req", "-in", request, "-days", "30"),
                    *("-CA", self.parties.authority, "-CAkey", self.parties.authority_key),
                    *("-copy_extensions", "copyall", "-out", request.with_suffix(".pem")),
                ],
                capture_output=True,
                check=True,
            )

    def command(self, name: str) -> tuple[str, ...]:
        return unit(name).run_in(self.machine.configuration, self.folder, confined=has_systemd())

    def start(self, name: str, port: int) -> None:
        tls = self.parties.tls(PROBER)
        door: Door = NatsDoor(port, tls) if name == "nats" else GrpcDoor(port, tls)
        part = Part(name, self.command(name), port, door, self.folder / f"{name}.log")
        self.running[name] = ProcessUnderTest(part)
        self.running[name].start()


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[MachineUnderTest]:
    made = MachineUnderTest(tmp_path)
    try:
        yield made
    finally:
        for process in reversed(made.running.values()):
            process.kill()


@pytest.mark.usefixtures("long_form")
def test_a_prepared_machine_runs_by_its_units_and_a_search_passes(
    machine: MachineUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {path.name for path in machine.prepared.wanted} == {
        *(f"{one}.pem" for one in ("nats", "ledger", "policy", "broker", "connector", "authority"))
    }
    begun = subprocess.run(
        machine.command("ledger-begin"), capture_output=True, text=True, check=False
    )
    assert begun.stdout.startswith("BEGUN"), begun.stderr
    ports = machine.ports
    for name, port in (
        *(("nats", ports.nats), ("ledger", ports.ledger), ("policy", ports.policy)),
        *(("broker", ports.broker), ("connector", ports.connectors[SYSTEM])),
    ):
        machine.start(name, port)
        if name == "policy":
            of_parties = publish_directives(
                machine.parties.directives,
                address(port),
                machine.parties.tls(PROBER),
                lambda _: None,
            )
            asyncio.run(of_parties)
    picture = next(bundled.probes_folder().glob("id10_2.jpg"))
    code = exit_code(
        [
            *("search", "submit", str(picture), "--own-case", "--json"),
            *("--config", str(machine.parties.client(LAPD)), "--officer", "lapd-40123"),
            *("--system", SYSTEM, "--gallery", "lacris-booking"),
            *("--purpose", "criminal-investigation", "--suspicion", "reasonable-suspicion"),
            *("--severity", "violent-felony", "--nibrs", "120", "--case-number", "26-0001"),
            *("--provenance", "crime-scene-recording", "--capture", "stored-video-frame"),
        ]
    )
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "ANSWERED" in json.dumps(json.loads(said.out))
    for name in ("connector", "broker", "policy", "ledger", "nats"):
        assert machine.running[name].stop() == 0, machine.running[name].log
