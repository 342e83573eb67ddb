"""Signs the directives of an installation with the development keys of their parties.

An installation on one machine holds everybody's keys anyway, and its directives are its owner's to edit:
what was edited is signed anew at the next start. In earnest each party signs for itself, elsewhere.
"""

from pathlib import Path

from countersign.installation.files import write_public
from countersign.installation.keys import directive_signer, parties
from countersign.installation.layout import Layout
from directive import document, signature
from directive.book import directive_folders
from directive.document import Document
from directive.findings import DirectiveRefused
from directive.signature import SIGNATURE_FILE, Signers
from directive.vocabulary import Vocabulary, VocabularyError
from shared.registry import Registry


def sign_directives(layout: Layout, registry: Registry) -> None:
    """Signs what its party has not signed. What cannot be read is left for the policy service to refuse."""
    known = {party: directive_signer(layout.keys, party) for party in parties(registry)}
    signers = Signers.parse({party: (signer.vkey,) for party, signer in known.items()})
    try:
        vocabulary = Vocabulary.load(layout.directives)
    except VocabularyError:
        return
    for folder in directive_folders(layout.directives):
        try:
            read = document.read(folder)
            signer = known.get(read.manifest.party)
            if signer is not None and not _is_signed(folder, read, vocabulary, signers):
                note = signature.sign(folder, read, vocabulary, signer)
                write_public(folder / SIGNATURE_FILE, note.encode())
        except DirectiveRefused:
            continue


def _is_signed(folder: Path, read: Document, vocabulary: Vocabulary, signers: Signers) -> bool:
    try:
        signature.check(folder, read, vocabulary, signers)
    except DirectiveRefused:
        return False
    return True
