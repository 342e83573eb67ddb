"""By which keys of the ledger a requester believes a search."""

import pytest

from countersign.client.verify import VerificationError, open_answer, verify_receipt
from support.orders import OFFICER, log_signer
from support.searches import LogInMemory, SearchWorkshop
from tlog.cosignature import CosignatureKind, Cosigner, LogCosigner


def test_log_is_believed_by_its_post_quantum_line_alone() -> None:
    """Who trusts that key and no Ed25519 key of the log has the same answers."""
    ed25519 = log_signer()
    cosigner = Cosigner.from_seed(ed25519.name, bytes(32), CosignatureKind.ML_DSA_44)
    workshop = SearchWorkshop(LogInMemory(ed25519, LogCosigner(cosigner, lambda: 1_750_000_000)))
    keys = {"log_verifier_keys": (cosigner.verifier.vkey,)}
    trust = workshop.trust.model_copy(update=keys)
    assert open_answer(
        workshop.prepared,
        workshop.end(workshop.decide(), workshop.sign(workshop.answer())),
        OFFICER,
        trust,
    ).candidates
    witness = Cosigner.from_seed(ed25519.name, bytes(32), CosignatureKind.ED25519).verifier.vkey
    with pytest.raises(VerificationError, match="not of type 4"):
        verify_receipt(
            workshop.decide().decision_receipt,
            trust.model_copy(update={"log_verifier_keys": (witness,)}),
        )
