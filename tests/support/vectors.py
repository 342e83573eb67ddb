"""The published vectors of the transparency-log formats that several tests share."""

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from tlog.cosignature import CosignatureKind, Cosigner, subtree_message
from tlog.note import Signer, write_signature

ORIGIN = "ledger.example/exchange"
LOG = Signer.from_seed(ORIGIN, bytes(range(32)))
LOG_VKEY = "ledger.example/exchange+1df36bb4+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
ROOT_7 = bytes.fromhex("98c97f0ba3175cd08b031dd084b9dc4e649b64d1a28e6ea694646503173ab587")
TEXT = f"{ORIGIN}\n7\nmMl/C6MXXNCLAx3QhLncTmSbZNGijm6mlGRlAxc6tYc=\n"
LOG_LINE = (
    "\N{EM DASH} ledger.example/exchange HfNrtPvuxeUX7ixN6ktcjemG97Yi3snt2sNzVCZVp6joghi8iZGxbASm9xYr"
    "5sqHynUWIjVPIwtYZJiSKUFl67trOwI=\n"
)
NOTE = f"{TEXT}\n{LOG_LINE}"

WITNESS_TIME = 1_750_000_000
WITNESS = Cosigner.from_seed("witness.example/w1", bytes(range(32, 64)), CosignatureKind.ED25519)
WITNESS_VKEY = "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"
WITNESS_LINE = (
    "\N{EM DASH} witness.example/w1 IDJKvgAAAABoTuGAMyQ5GFHl8ch/mNJoYNovb/mWZZsFHSeQDDr7WQHuQMxA4N+K6zA"
    "x3pp3XL17B41eGOgGF2w5NgIeWW12/6WoCw==\n"
)

PQ_WITNESS = Cosigner.from_seed(
    "witness.example/w1-pq", bytes(range(64, 96)), CosignatureKind.ML_DSA_44
)


def timeless_line() -> str:
    """A line by the post-quantum witness that claims nothing of there being no larger tree."""
    message = subtree_message(PQ_WITNESS.verifier.name, 0, ORIGIN, 0, 7, ROOT_7)
    raw = MLDSA44PrivateKey.from_seed_bytes(bytes(range(64, 96))).sign(message)
    return write_signature(PQ_WITNESS.verifier.name, PQ_WITNESS.verifier.key_id, bytes(8) + raw)


PROOF_HASHES = (
    "n/U3thiiV++CkIxFkVrLrrbZ3qA11tk5ZPyIwZ6YyLM=",
    "vhV4G2KKKEFMHIoRuG24Qi+hBBIV/g18RJbSPNoeQUI=",
    "l5nzB1F+9RfCIF35tndivzR1ayAJn7ffzOdrzr0nOy4=",
)
PROOF = "".join(
    f"{line}\n" for line in ("c2sp.org/tlog-proof@v1", "index 4", *PROOF_HASHES, "")
) + (NOTE + WITNESS_LINE)
