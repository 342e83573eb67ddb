"""The broker: the front door of agency systems.

Trusted to sign orders, to append to the ledger and to keep agencies apart. Not trusted to see a face,
to decide by itself, or to be believed without the ledger's receipt: probes and candidates are sealed
past it, every party's directives are asked, and connectors and clients check its work. It keeps no
database: what it knows it has from the ledger and can have again.
"""
