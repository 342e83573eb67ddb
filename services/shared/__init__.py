"""What the services, the client and the command line share, and no more.

Trusted with keys and with the mapping of errors to statuses; knows no service.
"""
