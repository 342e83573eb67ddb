"""Who signed the vocabulary: `vocabulary.sig` beside it, a C2SP signed note.

Its text names the version and the digest of the vocabulary, and those of each version before it: whoever
changes what a word meant has to sign that. The signer is whoever the trust roots name, as a rule the
operator of the broker.
"""

from pathlib import Path
from typing import Final

from directive.vocabulary import Vocabulary, VocabularyError
from tlog.errors import TlogError, UnknownSigner
from tlog.note import NOTE_BYTES_MAX, NoteSigner, UnverifiedNote, Verifier, sign_note

SIGNATURE_FILE: Final = "vocabulary.sig"
_CONTEXT: Final = "countersign/vocabulary-signature/v1"


def statement(vocabulary: Vocabulary) -> str:
    """What is signed."""
    versions = [vocabulary, *(one for _, one in sorted(vocabulary.earlier.items(), reverse=True))]
    lines = [f"vocabulary {one.version} sha256:{one.sha256.hex()}" for one in versions]
    return "".join(f"{line}\n" for line in (_CONTEXT, *lines))


def sign(vocabulary: Vocabulary, signer: NoteSigner) -> str:
    """The note for `vocabulary.sig`."""
    return sign_note(statement(vocabulary), [signer])


def check(folder: Path, vocabulary: Vocabulary, keys: tuple[Verifier, ...]) -> tuple[Verifier, ...]:
    """The keys that signed the folder's vocabulary; raises VocabularyError when none of these did."""
    path = folder / SIGNATURE_FILE
    try:
        with path.open("rb") as file:
            content = file.read(NOTE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise VocabularyError(
            f"{path}: the vocabulary is not signed: `countersign vocabulary sign` does"
        ) from error
    except OSError as error:
        raise VocabularyError(f"{path}: {error.strerror}") from error
    try:
        note = UnverifiedNote.parse(content)
        signed = note.verify(keys)
    except UnknownSigner as error:
        names = ", ".join(sorted({line.name for line in note.signatures}))
        raise VocabularyError(
            f"{path}: is signed by {names}, and with no key of vocabulary_signers in the trust roots: sign "
            "with one of those (`countersign vocabulary sign`), or enter its verifier key there"
        ) from error
    except TlogError as error:
        raise VocabularyError(f"{path}: {error}") from error
    if note.text != statement(vocabulary):
        raise VocabularyError(
            f"{path}: signs another vocabulary, or other versions before it: sign it again"
        )
    return signed


def load(folder: Path, vkeys: tuple[str, ...]) -> Vocabulary:
    """The folder's vocabulary, signed with one of these keys; raises VocabularyError.

    Without keys nobody is asked.
    """
    vocabulary = Vocabulary.load(folder)
    if vkeys:
        try:
            keys = tuple(Verifier.parse(vkey) for vkey in vkeys)
        except TlogError as error:
            raise VocabularyError(f"trust roots: vocabulary_signers: {error}") from error
        check(folder, vocabulary, keys)
    return vocabulary
