"""What the services, the client and the command line share, and no more.

Trusted with keys and with the mapping of errors to statuses; knows no service.
"""

from shared.lazily import read_when_used

# nats-py reads it for WebSockets, which nobody here speaks: a fifth of what a process reads at its start.
read_when_used("aiohttp")
