"""The C2SP transparency-log formats: trees, tiles, signed notes, checkpoints and offline proofs.

Nothing of ours is imported, and of others only PyNaCl and cryptography, so that an auditor can take this
package alone and check a ledger without trusting the rest of the software: `python -m tlog --help`.
No input or output happens here but in `folder`, which reads files for that command.
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
