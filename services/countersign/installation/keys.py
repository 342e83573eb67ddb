"""The signing and sealing keys of an installation, and the trust roots that hold their public halves.

A key is made once and reused: a ledger whose key changed could no longer be verified, and a probe
sealed to a lost key could never be opened.
"""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.installation.files import write_public, write_secret
from countersign.installation.identity_provider import DevelopmentIdentityProvider
from shared.registry import Registry
from shared.sealing import PrivateKey
from shared.signing import BadKey, SigningKey
from tlog.cosignature import SEED_BYTES, CosignatureKind
from tlog.cosigner_key import read_cosigner_key, write_cosigner_key
from tlog.errors import TlogError
from tlog.note import NoteSigner, Verifier

LEDGER_ORIGIN: Final = "countersign.test/ledger"
"""The log's name, which stands in the first line of each checkpoint and names its key."""


DIRECTIVE_SIGNERS: Final = "countersign.test/directives"
"""Before a party's name: under which its development key signs its directives."""

VOCABULARY_SIGNER: Final = "countersign.test/vocabulary"
"""The name under which the development key signs the vocabulary."""

WITNESS_NAME: Final = "countersign.test/witness"
"""The name that an installation's own witness signs under."""


@dataclass(frozen=True)
class KeyFiles:
    """Where each private key lies, below one folder."""

    folder: Path

    @property
    def broker_order(self) -> Path:
        """Ed25519: the broker signs orders with it."""
        return self.folder / "broker-order.pem"

    @property
    def ledger_note(self) -> Path:
        """Ed25519: the ledger signs checkpoints with it."""
        return self.folder / "ledger-note.pem"

    @property
    def ledger_vkey(self) -> Path:
        """The ledger's verifier key (C2SP signed note), as text. Not secret: publish it."""
        return self.folder / "ledger.vkey"

    @property
    def witness(self) -> Path:
        """Ed25519: the witness cosigns checkpoints with it."""
        return self.folder / "witness-ed25519.key"

    @property
    def witness_vkey(self) -> Path:
        """The witness's verifier key, as text. Not secret."""
        return self.folder / "witness-ed25519.vkey"

    def sealing(self, system: str) -> Path:
        """X25519: the connector opens probes with it."""
        return self.folder / f"connector-{system}-sealing.pem"

    def answer(self, system: str) -> Path:
        """Ed25519: the connector signs answers with it."""
        return self.folder / f"connector-{system}-answer.pem"

    def identity_provider(self, ori: str) -> Path:
        """Ed25519: the agency's development identity provider signs officer tokens with it."""
        return self.folder / f"identity-provider-{ori}.pem"

    @property
    def vocabulary(self) -> Path:
        """Ed25519: the vocabulary's owner signs it with it."""
        return self.folder / "vocabulary.pem"

    def directives(self, party: str) -> Path:
        """Ed25519: the party signs its directives with it."""
        return self.folder / f"directives-{party}.pem"


def directive_signer(files: KeyFiles, party: str) -> NoteSigner:
    """Makes the key with which a party signs its directives if it is missing; raises BadKey."""
    return signing_key_at(files.directives(party)).note_signer(f"{DIRECTIVE_SIGNERS}/{party}")


def vocabulary_signer(files: KeyFiles) -> NoteSigner:
    """Makes the key with which the vocabulary is signed if it is missing; raises BadKey."""
    return signing_key_at(files.vocabulary).note_signer(VOCABULARY_SIGNER)


def parties(registry: Registry) -> list[str]:
    """Everybody who may have ordered something: agencies and jurisdictions."""
    return sorted({*registry.agencies, *registry.jurisdictions})


def issuer_of(ori: str) -> str:
    """The issuer that an agency's development identity provider calls itself."""
    return f"https://identity.countersign.test/{ori}"


def ensure_keys(
    files: KeyFiles, registry: Registry, log_origin: str = LEDGER_ORIGIN
) -> dict[str, object]:
    """Makes the keys that are missing; gives the trust roots. Raises BadKey for a damaged file."""
    verifier = Verifier(log_origin, signing_key_at(files.ledger_note).verify_key.raw)
    write_public(files.ledger_vkey, f"{verifier.vkey}\n".encode())
    return {
        "log_verifier_keys": [verifier.vkey],
        "broker_verify_keys": [text_of(signing_key_at(files.broker_order).verify_key.raw)],
        "systems": {
            system: {
                "sealing_public_key": text_of(sealing_key_at(files.sealing(system)).public_key),
                "answer_verify_key": text_of(signing_key_at(files.answer(system)).verify_key.raw),
            }
            for system in registry.systems
        },
        "identity_providers": {
            ori: DevelopmentIdentityProvider(
                issuer_of(ori), signing_key_at(files.identity_provider(ori))
            ).registration()
            for ori in registry.agencies
        },
        "vocabulary_signers": [vocabulary_signer(files).vkey],
        "directive_signers": {
            party: [directive_signer(files, party).vkey] for party in parties(registry)
        },
    }


def ensure_witness_key(files: KeyFiles) -> str:
    """Makes the witness's key if it is missing; gives its verifier key. Raises BadKey for a damaged file."""
    if not files.witness.exists():
        kind, seed = CosignatureKind.ED25519, os.urandom(SEED_BYTES)
        write_secret(files.witness, f"{write_cosigner_key(WITNESS_NAME, seed, kind)}\n".encode())
    try:
        vkey = read_cosigner_key(files.witness.read_text(encoding="ascii").strip()).verifier.vkey
    except (TlogError, UnicodeDecodeError) as error:
        raise BadKey(f"{files.witness} is not a witness's key file") from error
    write_public(files.witness_vkey, f"{vkey}\n".encode())
    return vkey


def write_trust_roots(path: Path, trust_roots: dict[str, object]) -> None:
    """Writes them as `shared.registry.TrustRoots` reads them."""
    write_public(path, (json.dumps(trust_roots, indent=2) + "\n").encode())


def signing_key_at(path: Path) -> SigningKey:
    """The Ed25519 key in this file, which is made if it is missing; raises BadKey."""
    if not path.exists():
        write_secret(path, SigningKey.generate().pem())
    return SigningKey.load(path)


def sealing_key_at(path: Path) -> PrivateKey:
    """The X25519 key in this file, which is made if it is missing; raises BadKey."""
    if not path.exists():
        write_secret(path, PrivateKey.generate().pem())
    return PrivateKey.load(path)


def text_of(raw: bytes) -> str:
    """A public key as trust roots have it."""
    return base64.b64encode(raw).decode()
