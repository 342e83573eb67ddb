"""The C2SP transparency-log formats: trees, tiles, signed notes, checkpoints and offline proofs.

No input or output happens here and nothing of ours is imported, so that an auditor can take this
package alone and check a ledger without trusting the rest of the software.
"""

from tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from tlog.errors import TlogError
from tlog.note import Signer, Verifier
from tlog.proof import TlogProof, verify_receipt

__all__ = [
    "Checkpoint",
    "Signer",
    "TlogError",
    "TlogProof",
    "Verifier",
    "open_checkpoint",
    "sign_checkpoint",
    "verify_receipt",
]
