"""Puts load on a running installation, as one agency's system, and measures what its people would wait.

Knows the contracts and the client only: what is measured is somebody's installation, wherever it runs.
"""
