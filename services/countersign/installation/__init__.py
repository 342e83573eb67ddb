"""A complete installation on one machine: `countersign up`.

Makes a development certificate authority, keys, identity providers and configuration in a data
directory, and runs every part as a process of its own. What it makes is for trying things out and for
tests: a real agency keeps its own keys, and its officers have a real identity provider.
"""
