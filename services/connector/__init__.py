"""Runs beside one face-recognition system and is the only part that sees a face.

Trusted for: opening probes, having them compared, sealing the candidates to the requester, and
never running an order whose proof it did not verify itself, against keys that it holds itself.

Not trusted for: deciding what is permitted elsewhere, or recording. It reaches the ledger only
through the broker, so whatever it says counts only once the broker has had it recorded.
"""
