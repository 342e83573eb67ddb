"""The ledger: an append-only log of entries that outsiders can verify.

Trusted to say "durable" only of what is, to sign one history and no other, and to keep openings.
Not trusted to be believed: whoever holds the log's public key checks its receipts, its proofs and a
whole export of it without asking. It decides nothing and sees no face.
"""
