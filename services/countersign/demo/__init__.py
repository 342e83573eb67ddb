"""The demonstration: real searches on real parts, told so that a newcomer follows.

Each scene does something, shows it, and then checks on the results themselves, never on what was
printed, that it came out as promised. One check that fails ends the demonstration as failed.
"""
