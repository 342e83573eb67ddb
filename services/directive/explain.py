"""Makes a decision of the past again, and says what differs when it does not come out bit for bit."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from countersign.type.v1.decision_pb2 import Decision, DecisionOutcome, Verdict, VerdictOutcome
from directive.elsewhere import FAR_SEATS, Elsewhere, is_left_open, is_party_of
from directive.evaluate import ENGINE, Evaluator, seat_name
from directive.policy_set import policy_set_sha256
from directive.recorded import RecordedSearch
from directive.worlds import World


class Differs(StrEnum):
    """What differs. Append-only: programs branch on these."""

    PEER = "PEER"
    ENGINE = "ENGINE"
    DIRECTIVE_MISSING = "DIRECTIVE_MISSING"
    DIRECTIVE_TEXT = "DIRECTIVE_TEXT"
    DIRECTIVE_NOT_IN_FORCE = "DIRECTIVE_NOT_IN_FORCE"
    VOCABULARY_OR_REGISTRY = "VOCABULARY_OR_REGISTRY"
    TIME = "TIME"
    OUTCOME = "OUTCOME"
    VERDICT = "VERDICT"
    OBLIGATIONS = "OBLIGATIONS"
    BYTES = "BYTES"


CAUSES = frozenset(
    {
        Differs.PEER,
        Differs.ENGINE,
        Differs.DIRECTIVE_MISSING,
        Differs.DIRECTIVE_TEXT,
        Differs.DIRECTIVE_NOT_IN_FORCE,
        Differs.VOCABULARY_OR_REGISTRY,
    }
)
"""What the decision was made by is not what is at hand. Anything else has no such excuse."""


@dataclass(frozen=True)
class Difference:
    """One thing that differs."""

    what: Differs
    recorded: str
    now: str
    about: str = ""
    """The directive, or the seat and the party."""

    def __str__(self) -> str:
        about = f" {self.about}" if self.about else ""
        return f"{self.what}{about}: on record {self.recorded or '-'}; now {self.now or '-'}"


@dataclass(frozen=True)
class Explanation:
    """A decision made again."""

    search: RecordedSearch
    again: Decision
    differences: tuple[Difference, ...]

    @property
    def explained(self) -> bool:
        """Whether it came out bit for bit."""
        return not self.differences

    @property
    def taken(self) -> Mapping[str, int]:
        """How many verdicts of each peer are taken from the record and not made again."""
        return Counter(said.asked_at for said in self.search.decision.verdicts if said.asked_at)

    @property
    def contradicts(self) -> bool:
        """Whether it came out otherwise though everything that it was made by is at hand."""
        return bool(self.differences) and CAUSES.isdisjoint(d.what for d in self.differences)


def explain(
    search: RecordedSearch, world: World, peers: Mapping[str, Collection[str]] | None = None
) -> Explanation:
    """Make the decision again, by the engine itself. Raises what an Evaluator raises.

    What a peer's parties said is taken from the record, if its entry names the peer. `peers` has each peer's
    parties, where they are known.
    """
    evaluator = Evaluator(world.book, world.registry, keep=False)
    there = Elsewhere.on_record(search.decision)
    again = evaluator.evaluate(search.facts, search.officer, search.at, there)
    if search.decision.HasField("documents_index"):
        # Folders do not know of documents; what the ledger held is looked up by this very index.
        again.documents_index = search.decision.documents_index
    found = [*_untied(search, peers), *differences(search.decision, again, world)]
    return Explanation(search, again, tuple(found))


def _untied(
    search: RecordedSearch, peers: Mapping[str, Collection[str]] | None
) -> Iterator[Difference]:
    """Verdicts whose own mark says that a peer gave them, and nothing else: copied, any would come out."""
    for said in search.decision.verdicts:
        if not said.asked_at:
            continue
        about = f"{seat_name(said.seat)} {said.party or 'unknown'}"
        then = f"asked at {said.asked_at}: {_says(said)}"
        if not _names_peer(search, said):
            yield Difference(Differs.VERDICT, then, "its entry does not name this peer", about)
        elif peers is not None and not is_party_of(peers.get(said.asked_at, ()), said):
            yield Difference(Differs.PEER, then, "no party of this peer", about)


def _names_peer(search: RecordedSearch, said: Verdict) -> bool:
    if said.asked_at == search.referred_by:
        return said.seat not in FAR_SEATS or is_left_open(said)
    if not is_left_open(said):
        return False
    # A refusal names no peer, though one would have been asked; nor does a dry run.
    return search.referred_to in ("", said.asked_at)


def same_bytes(one: Decision, other: Decision) -> bool:
    """Whether two decisions are the same bit for bit."""
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def differences(recorded: Decision, again: Decision, world: World) -> Iterator[Difference]:
    """What differs between a decision and the same made again; nothing when they are the same bit for bit."""
    if same_bytes(recorded, again):
        return
    found = [*causes(recorded, again, world), *_effects(recorded, again)]
    yield from found
    if not found:
        yield Difference(Differs.BYTES, "other bytes", "all that is understood here is the same")


def causes(recorded: Decision, again: Decision, world: World) -> Iterator[Difference]:
    """What the decision was made by that is not at hand."""
    if _peers(recorded) and not _peers(again):
        yield Difference(Differs.PEER, ", ".join(_peers(recorded)), "")
    if recorded.engine != ENGINE:
        yield Difference(Differs.ENGINE, recorded.engine, ENGINE)
    # The texts of a peer's parties are in the peer's ledger, and so is what they said.
    asked_here = [said for said in recorded.verdicts if not said.asked_at]
    applied = {one.name: one.sha256 for said in asked_here for one in said.directives}
    held = {name: one.document.sha256 for name, one in world.book.directives.items()}
    missing = False
    for name, sha256 in sorted(applied.items()):
        if held.get(name) != sha256:
            missing = True
            what = Differs.DIRECTIVE_TEXT if name in held else Differs.DIRECTIVE_MISSING
            yield Difference(what, sha256.hex(), held[name].hex() if name in held else "", name)
    day = recorded.evaluated_at.ToDatetime().date()
    for said in asked_here:
        if not said.party or not said.directives:
            continue
        rules = world.book.slice(said.party, day)
        now = {one.name for one in rules.versions} if rules else set()
        for name in sorted(now ^ {one.name for one in said.directives}):
            if name in now or name in held:
                missing = True
                then, here = (
                    ("not applied", "applied") if name in now else ("applied", "not applied")
                )
                yield Difference(Differs.DIRECTIVE_NOT_IN_FORCE, then, here, name)
    # With their own engine and texts the digest must come out, or what is not told apart in it has changed.
    expected = [
        policy_set_sha256(world.book.vocabulary, world.registry, recorded.engine, said)
        for said in (recorded.verdicts, again.verdicts)
    ]
    if not missing and recorded.policy_set_sha256 not in expected:
        yield Difference(
            Differs.VOCABULARY_OR_REGISTRY, recorded.policy_set_sha256.hex(), expected[0].hex()
        )


def _peers(decision: Decision) -> list[str]:
    """Where parties were asked who are not asked here."""
    return sorted({said.asked_at for said in decision.verdicts if said.asked_at})


def _effects(recorded: Decision, again: Decision) -> Iterator[Difference]:
    if recorded.outcome != again.outcome:
        yield Difference(Differs.OUTCOME, _outcome(recorded), _outcome(again))
    if recorded.evaluated_at != again.evaluated_at:
        yield Difference(
            Differs.TIME,
            recorded.evaluated_at.ToJsonString(),
            again.evaluated_at.ToJsonString(),
        )
    then, now = (
        {(said.seat, said.party): said for said in decision.verdicts}
        for decision in (recorded, again)
    )
    for seat, party in dict.fromkeys([*then, *now]):
        before, after = then.get((seat, party)), now.get((seat, party))
        if before is None or after is None or _told(before) != _told(after):
            about = f"{seat_name(seat)} {party or 'unknown'}"
            yield Difference(Differs.VERDICT, _says(before), _says(after), about)
    duties = [
        sorted(f"{o.party} {o.rule_id} {o.kind}({o.parameters})" for o in decision.obligations)
        for decision in (recorded, again)
    ]
    if duties[0] != duties[1]:
        yield Difference(Differs.OBLIGATIONS, ", ".join(duties[0]), ", ".join(duties[1]))


def _told(said: Verdict) -> tuple[object, ...]:
    """All of a verdict but the texts that were applied, of which `causes` speaks."""
    copy = Verdict()
    copy.CopyFrom(said)
    copy.ClearField("directives")
    return (copy.SerializeToString(deterministic=True),)


def _outcome(decision: Decision) -> str:
    return DecisionOutcome.Name(decision.outcome).removeprefix("DECISION_OUTCOME_")


def _says(said: Verdict | None) -> str:
    if said is None:
        return "no verdict"
    outcome = VerdictOutcome.Name(said.outcome).removeprefix("VERDICT_OUTCOME_")
    unmet = [f"{one.rule_id}#{one.clause}" for one in said.unmet]
    why = [one.id for one in said.rules] + unmet + list(said.faults) + list(said.unknown_facts)
    return f"{outcome} {', '.join(why)}".strip()
