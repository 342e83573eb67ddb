"""Who signed a directive: `directive.sig` beside it, a C2SP signed note.

The note's text names the log in which it is to count, the directive, its party, the version of the vocabulary
and the SHA-256 of that vocabulary and of each of the three files. So one changed byte, also of a case, is
another directive, and so are the same words with another meaning; and what was signed for one installation
cannot be handed in at another. It is worked out from the files and compared; only the log is read from it.
Version 1 named no log: on record, and in a folder, it is what it was; nothing more is put on record with it.

A party signs for itself only: what counts are the keys that it registered, and a signature by anybody
else's is none. A lawyer's countersignature may stand beside the author's.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from directive.document import CASES_FILE, MANIFEST_FILE, RULES_FILE, Document, read_file
from directive.findings import DocumentError
from directive.guards import written_against
from directive.vocabulary import Vocabulary
from shared.registry import TrustRoots
from tlog.errors import FalseSignature, TlogError, UnknownSigner
from tlog.note import (
    NoteSigner,
    UnverifiedNote,
    Verifier,
    check_key_name,
    read_vkey,
    sign_note,
)

SIGNATURE_FILE: Final = "directive.sig"
_CONTEXT: Final = "countersign/directive-signature"
_WITHDRAWAL_CONTEXT: Final = "countersign/directive-withdrawal"
_LOG: Final = "log "

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Signers:
    """The keys that each party registered for its directives."""

    by_party: Mapping[str, tuple[Verifier, ...]]
    log: str = ""
    """The origin of the log in which signatures are to count; where none is known, that for any counts."""

    @classmethod
    def parse(cls, registered: Mapping[str, tuple[str, ...]], log: str = "") -> "Signers":
        """Reads verifier keys; raises TlogError."""
        return cls(
            {
                party: tuple(Verifier.parse(vkey) for vkey in vkeys)
                for party, vkeys in registered.items()
            },
            log,
        )

    def owner(self, name: str, key_id: bytes) -> str | None:
        """Whose key this is."""
        return next(
            (
                party
                for party, keys in self.by_party.items()
                if any((key.name, key.key_id) == (name, key_id) for key in keys)
            ),
            None,
        )


def required(trust: TrustRoots | None) -> Signers | None:
    """The keys that directives must be signed with; raises TlogError.

    None when nobody is to be asked, which every start says in the log: a directive that anybody could have
    written is applied then.
    """
    if trust is None or trust.directive_signers is None:
        log.warning("directives are loaded without asking who signed them: no directive_signers")
        return None
    return Signers.parse(trust.directive_signers, log_of(trust))


def log_of(trust: TrustRoots) -> str:
    """The origin of the log that is relied on; raises TlogError."""
    return read_vkey(trust.log_verifier_keys[0])[0]


def statement(document: Document, cases: bytes, vocabulary: Vocabulary, log: str = "") -> str:
    """What is signed for a log; raises DirectiveRefused when the vocabulary's version is not on file.

    Without a log it is version 1.
    """
    written = written_against(document, vocabulary)
    files = {
        MANIFEST_FILE: document.manifest_text.encode(),
        RULES_FILE: document.rules_text.encode(),
        CASES_FILE: cases,
    }
    lines = [
        *_head(_CONTEXT, log),
        f"directive {document.name}",
        f"party {document.manifest.party}",
        f"vocabulary {written.version} sha256:{written.sha256.hex()}",
        *(
            f"{file} sha256:{hashlib.sha256(content).hexdigest()}"
            for file, content in files.items()
        ),
    ]
    return "".join(f"{line}\n" for line in lines)


def withdrawal(document: Document, until: date, log: str = "") -> str:
    """What is signed to end a directive's effect in a log; `until` is the first day without it."""
    lines = [
        *_head(_WITHDRAWAL_CONTEXT, log),
        f"directive {document.name}",
        f"party {document.manifest.party}",
        f"text sha256:{document.sha256.hex()}",
        f"effective-until {until.isoformat()}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _head(context: str, log: str) -> list[str]:
    return [f"{context}/v2", f"{_LOG}{log}"] if log else [f"{context}/v1"]


def sign(
    folder: Path, document: Document, vocabulary: Vocabulary, signer: NoteSigner, log: str
) -> str:
    """The note for `directive.sig`, for the log of this origin.

    Raises DirectiveRefused when cases or vocabulary cannot be read, and TlogError for what names no log.
    """
    check_key_name(log)
    cases = read_file(folder / CASES_FILE)
    return sign_note(statement(document, cases, vocabulary, log), [signer])


def check(
    folder: Path,
    document: Document,
    vocabulary: Vocabulary,
    signers: Signers,
    *,
    new: bool = False,
) -> tuple[Verifier, ...]:
    """The keys of its party that signed it; raises DirectiveRefused when there is none."""
    note = read_file(folder / SIGNATURE_FILE) if (folder / SIGNATURE_FILE).exists() else None
    cases = read_file(folder / CASES_FILE)

    def says(log: str) -> str:
        return statement(document, cases, vocabulary, log)

    file = f"{document.name}/{SIGNATURE_FILE}"
    return check_note(document, note, says, signers, new=new, file=file)


def check_note(
    document: Document,
    content: bytes | None,
    says: Callable[[str], str],
    signers: Signers,
    *,
    new: bool,
    file: str,
) -> tuple[Verifier, ...]:
    """Its party's keys that signed what is to be signed for a log; raises DirectiveRefused when none did.

    What is new must name the log; other notes may be of version 1. Findings name the note by `file`.
    """
    party = document.manifest.party
    keys = signers.by_party.get(party, ())
    if not keys:
        message = (
            f"nobody can sign for {party}: it has registered no key "
            "(directive_signers in the trust roots)"
        )
        raise DocumentError("SIGNER_UNKNOWN", file, message)
    if content is None:
        raise DocumentError("SIGNATURE_MISSING", file, f"{party} has not signed this")
    try:
        note = UnverifiedNote.parse(content)
        # The signature before the text: what nobody known has signed accuses no file.
        signed = note.verify(keys)
    except UnknownSigner:
        raise DocumentError(
            "SIGNATURE_OTHER_PARTY", file, _signed_by(note, party, signers)
        ) from None
    except FalseSignature as error:
        raise DocumentError("SIGNATURE_FALSE", file, str(error)) from error
    except TlogError as error:
        raise DocumentError("SIGNATURE", file, f"is no signed note: {error}") from error
    named = _named_log(note.text)
    expected = says(named)
    if note.text != expected:
        changed = set(expected.splitlines()) - set(note.text.splitlines())
        what = ", ".join(sorted(line.split(" ")[0] for line in changed)) or "the order of its lines"
        message = f"signs something else: what differs is {what}"
        raise DocumentError("SIGNATURE_OF_OTHER_BYTES", file, message)
    if signers.log and named != signers.log and (named or new):
        message = f"was signed for {named or 'no log in particular'}, and this is {signers.log}"
        raise DocumentError("SIGNED_FOR_OTHER_LOG", file, message)
    return signed


def _named_log(text: str) -> str:
    """The log that a note names; empty in version 1. The whole text is compared then."""
    second = text.split("\n", 2)[1]
    return second.removeprefix(_LOG) if second.startswith(_LOG) else ""


def _signed_by(note: UnverifiedNote, party: str, signers: Signers) -> str:
    owners = {
        f"{line.name} ({signers.owner(line.name, line.key_id) or 'registered by nobody'})"
        for line in note.signatures
    }
    return (
        f"is signed by {', '.join(sorted(owners))}, and by no key that {party} registered: sign with "
        "one of those, or have this one registered (directive_signers in the trust roots)"
    )
