"""Signs the directives of an installation with the development keys of their parties, and publishes them.

An installation on one machine holds everybody's keys anyway, and its directives are its owner's to add to:
what is new in its folder is signed and published at the next start. In earnest each party signs for itself,
elsewhere, and publishes when it wants to.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from countersign.client.documents import DirectiveClient, handed_in
from countersign.installation.files import write_public
from countersign.installation.keys import (
    LEDGER_ORIGIN,
    directive_signer,
    parties,
    vocabulary_signer,
)
from countersign.installation.layout import Layout
from directive import document, signature, vocabulary_signature
from directive.book import directive_folders
from directive.document import Document
from directive.findings import DirectiveRefused
from directive.signature import SIGNATURE_FILE, Signers
from directive.vocabulary import Vocabulary, VocabularyError
from shared.errors import Conflict, InvalidRequest
from shared.registry import Registry
from shared.settings import TlsFiles


def sign_directives(layout: Layout, registry: Registry, log: str = LEDGER_ORIGIN) -> None:
    """Signs what its party has not signed for this log, by its name.

    What cannot be read is left for the policy service to refuse.
    """
    known = {party: directive_signer(layout.keys, party) for party in parties(registry)}
    vkeys = {party: (signer.vkey,) for party, signer in known.items()}
    signers = Signers.parse(vkeys, log)
    try:
        vocabulary = Vocabulary.load(layout.directives)
    except VocabularyError:
        return
    note = vocabulary_signature.sign(vocabulary, vocabulary_signer(layout.keys))
    write_public(layout.directives / vocabulary_signature.SIGNATURE_FILE, note.encode())
    for folder in directive_folders(layout.directives):
        try:
            read = document.read(folder)
            signer = known.get(read.manifest.party)
            if signer is not None and not _is_signed(folder, read, vocabulary, signers):
                note = signature.sign(folder, read, vocabulary, signer, log)
                write_public(folder / SIGNATURE_FILE, note.encode())
        except DirectiveRefused:
            continue


def _is_signed(folder: Path, read: Document, vocabulary: Vocabulary, signers: Signers) -> bool:
    try:
        signature.check(folder, read, vocabulary, signers, new=True)
    except DirectiveRefused:
        return False
    return True


async def publish_directives(
    folder: Path, policy: str, tls: TlsFiles, report: Callable[[str], None]
) -> None:
    """Puts on record what is in the folder and is not yet. Raises ServiceError when that cannot be done.

    What is refused is told and left out: it would not be in force wherever it lay.
    """
    async with DirectiveClient.connect(policy, tls) as client:
        on_record = {one.name: one.sha256 for one in await client.list()}
        for one in _in_order(directive_folders(folder)):
            try:
                read = document.read(one)
                if on_record.get(read.name) == read.sha256:
                    continue
                report(f"publishes {read.name}")
                await client.publish(handed_in(one, received_late=True))
            except DirectiveRefused as refused:
                report(f"has not published {one.name}: {refused}")
            except (Conflict, InvalidRequest) as error:
                found = "; ".join(f"{one.field}: {one.description}" for one in error.violations)
                report(f"has not published {one.name}: {found or error.message}")


def _in_order(folders: Sequence[Path]) -> list[Path]:
    """Each after the directive whose place it takes, as its name would otherwise have it."""
    replaces: dict[str, str | None] = {}
    for folder in folders:
        try:
            replaces[folder.name] = document.read(folder).manifest.replaces
        except DirectiveRefused:
            replaces[folder.name] = None

    def age(name: str) -> int:
        chain = [name]
        while (before := replaces.get(chain[-1])) is not None and before not in chain:
            chain.append(before)
        return len(chain)

    return sorted(folders, key=lambda folder: (age(folder.name), folder.name))
