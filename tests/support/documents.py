"""Directives as their parties publish them, and the entries that a ledger would make of them."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from countersign.ledger.v1.entry_pb2 import Entry
from countersign.policy.v1 import policy_pb2 as pb
from directive import document, holdings, signature
from directive.book import Directive
from directive.entities import known_names
from directive.holdings import Held, Holdings, World
from directive.signature import Signers
from shared.clock import stamp
from shared.signing import SigningKey
from support.directives import DIRECTIVES, LAPD, LASD, NOON, registry, vocabulary
from support.ledgers import ORIGIN
from tlog.note import sign_note

KEYS = {party: SigningKey.generate() for party in (LAPD, LASD, "US-CA", "stranger")}
SIGNERS = {party: key.note_signer(f"{party}/directives") for party, key in KEYS.items()}
KNOWN = Signers.parse({party: (SIGNERS[party].vkey,) for party in KEYS if party != "stranger"})
NAME = "lapd-2020-11-13"


def world(signers: Signers | None = KNOWN) -> World:
    return World(vocabulary(), known_names(registry()), signers)


def text(name: str, file: str, *changes: tuple[str, str]) -> str:
    """A shipped directive's file with something put in the place of something else."""
    content = (DIRECTIVES / name / file).read_text()
    for old, new in changes:
        assert old in content, f"{name}/{file} has no {old!r}"
        content = content.replace(old, new)
    return content


def handed_in(
    name: str = NAME,
    *,
    manifest: Sequence[tuple[str, str]] = (),
    rules: Sequence[tuple[str, str]] = (),
    cases: Sequence[tuple[str, str]] = (),
    by: str | None = None,
    log: str = ORIGIN,
) -> pb.PublishDirectiveRequest:
    """A shipped directive with changes, signed by its party or by somebody else; "" for nobody.

    For the ledger of tests, or another; "" for none, as version 1 was.
    """
    request = pb.PublishDirectiveRequest(
        manifest=text(name, "directive.toml", *manifest),
        rules=text(name, "rules.cedar", *rules),
        cases=text(name, "cases.yaml", *cases),
        received_late=True,
    )
    read = document.parse(name, request.manifest.encode(), request.rules.encode())
    signer = read.manifest.party if by is None else by
    if signer:
        said = signature.statement(read, request.cases.encode(), vocabulary(), log)
        request.note = sign_note(said, [SIGNERS[signer]])
    return request


def renamed(new: str, day: str, name: str = NAME) -> list[tuple[str, str]]:
    """The manifest's changes for a text that takes the directive's place on a day."""
    begins = document.read(DIRECTIVES / name).manifest.effective_from
    return [
        (f'name = "{name}"', f'name = "{new}"\nreplaces = "{name}"'),
        (f"effective_from = {begins}", f"effective_from = {day}"),
    ]


def published(request: pb.PublishDirectiveRequest, now: Holdings) -> Entry:
    read = document.parse("directive", request.manifest.encode(), request.rules.encode())
    entry = holdings.published(read, request.cases, request.note, now, now.head)
    entry.recorded_at.CopyFrom(stamp(NOON))
    return entry


def withdrawal_note(held: Held, until: date, by: str | None = None, log: str = ORIGIN) -> str:
    signer = SIGNERS[by or held.document.manifest.party]
    return sign_note(signature.withdrawal(held.document, until, log), [signer])


def write(folder: Path, request: pb.PublishDirectiveRequest) -> Path:
    """A folder as its author has it."""
    name = document.parse("x", request.manifest.encode(), request.rules.encode()).name
    (folder / name).mkdir()
    for file, content in (
        ("directive.toml", request.manifest),
        ("rules.cedar", request.rules),
        ("cases.yaml", request.cases),
        ("directive.sig", request.note),
    ):
        (folder / name / file).write_text(content)
    return folder / name


def held_of(response: pb.GetDirectiveResponse) -> Held:
    """A directive as the service tells of it."""
    read = document.parse("x", response.manifest.encode(), response.rules.encode())
    return Held(Directive(read, ()), response.directive.published_index, NOON, "", "")
