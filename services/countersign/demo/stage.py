"""What every scene stands on: the running parts, the agency's client, and how one speaks to the reader."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from countersign.broker.v1 import broker_pb2 as pb
from countersign.cli.escaping import escape
from countersign.cli.receipts import save_receipts
from countersign.cli.search import submit_search
from countersign.client import ClientSettings, OpenedAnswer
from countersign.client.search_ids import new_search_id
from countersign.installation.bundled import probes_folder
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from countersign.installation.prepare import Installation
from countersign.type.v1 import search_pb2 as types
from countersign.type.v1.decision_pb2 import Verdict, VerdictOutcome
from shared.signing import SigningKey
from tlog.folder import LEAF_SUFFIX, load_policy, verify_receipt_file
from tlog.note import Verifier
from tlog.policy import Policy

LAPD: Final = "CA0194200"
BURBANK: Final = "CA0191200"
DETECTIVE: Final = "lapd-40123"
DETECTIVE_LAPSED: Final = "lapd-40777"
PERSON: Final = "id07"
"""The drawn person whose third picture is the probe; the gallery holds the other two."""
CANDIDATES: Final = 5
ANSWER_WAIT_S: Final = 60.0


class SceneFailed(Exception):
    """Something did not happen that the scene promises."""


def expect(happened: bool, promise: str) -> None:
    """Raises SceneFailed unless it happened."""
    if not happened:
        raise SceneFailed(f"this should be true and is not: {promise}")


@dataclass
class Stage:
    """The running parts and what the scenes have done so far."""

    installation: Installation
    console: Console
    folder: Path
    """Where receipts and exports go."""
    decided: list[str] = field(default_factory=list)
    """Ids of the searches, in order."""

    @property
    def settings(self) -> ClientSettings:
        """What a system of LAPD is configured with."""
        return ClientSettings.load(self.installation.layout.client(LAPD))

    @property
    def ledger_key(self) -> Verifier:
        """The ledger's public key, as an outsider has it."""
        return Verifier.parse(self.installation.layout.keys.ledger_vkey.read_text().strip())

    @property
    def policy(self) -> Policy:
        """What an outsider demands: the ledger's signature, and the witness's."""
        return load_policy(self.installation.layout.policy)

    def say(self, text: str) -> None:
        """A paragraph for the reader."""
        self.console.print(f"{text}\n")

    def shown_true(self, text: str) -> None:
        """Something that has just been checked."""
        self.console.print(f"[green]checked:[/] {escape(text)}", soft_wrap=True)

    def facts(self, beneficiary: str | None = LAPD) -> types.SearchFacts:
        """A robbery that a shop's camera recorded, searched for on LACRIS."""
        facts = types.SearchFacts(
            search_id=new_search_id(),
            origin_agency=LAPD,
            system="lacris",
            gallery="lacris-booking",
            purpose=types.PURPOSE_CRIMINAL_INVESTIGATION,
            suspicion=types.SUSPICION_LEVEL_REASONABLE_SUSPICION,
            offence=types.Offence(
                nibrs_code="120",
                statute="Cal. Penal Code s. 211",
                severity=types.OFFENCE_SEVERITY_VIOLENT_FELONY,
            ),
            provenance=types.PROBE_PROVENANCE_CRIME_SCENE_RECORDING,
            capture_mode=types.CAPTURE_MODE_STORED_VIDEO_FRAME,
            case_number="26-0001",
            narrative="A robbery recorded by the shop's camera.",
            candidates_max=CANDIDATES,
        )
        if beneficiary is not None:
            facts.beneficiary_agency = beneficiary
        return facts

    async def submit(
        self, facts: types.SearchFacts, officer: str = DETECTIVE
    ) -> tuple[pb.Search, OpenedAnswer | None]:
        """Submits as `countersign search submit` does, and waits for the end."""
        settings = self.settings
        provider = settings.identity_provider
        assert provider is not None, "the installation writes one for every agency"
        key = SigningKey.load(provider.signing_key)
        token = DevelopmentIdentityProvider(provider.issuer, key).token(officer, facts.search_id)
        picture = (probes_folder() / f"{PERSON}_2.jpg").read_bytes()
        result = await submit_search(settings, facts, picture, token, ANSWER_WAIT_S)
        self.decided.append(facts.search_id)
        return result

    def verify_receipts_offline(self, search: pb.Search) -> int:
        """Saves the receipts as files and verifies those with the public key alone. Gives their number."""
        proofs = save_receipts(self.folder / "receipts", search)
        policy = Policy.of_logs([self.ledger_key])
        for proof in proofs:
            verify_receipt_file(proof, proof.with_suffix(LEAF_SUFFIX), policy)
        return len(proofs)


def refusals(search: pb.Search) -> Mapping[str, list[Verdict]]:
    """The verdicts that do not permit, by party; an unknown party is the empty text."""
    by_party: dict[str, list[Verdict]] = {}
    for verdict in search.decision.verdicts:
        if verdict.outcome != VerdictOutcome.VERDICT_OUTCOME_PERMIT:
            by_party.setdefault(verdict.party, []).append(verdict)
    return by_party
