"""The one error that leaves this package."""


class TlogError(Exception):
    """Bytes that are not what they claim to be, or a proof that does not prove.

    The message says what was found and where. It never quotes the content of an entry.
    """
