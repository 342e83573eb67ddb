"""The errors that leave this package: one class, and a few kinds of it that callers tell apart."""

from typing import Final


class TlogError(Exception):
    """Bytes that are not what they claim to be, or a proof that does not prove.

    The message says what was found and where. It never quotes the content of an entry.
    """


class FalseSignature(TlogError):
    """A line that bears a known key's name and id, and that this key did not sign."""

    def __init__(self, name: str, key_id: bytes, what: str) -> None:
        self.key: Final = f"{name}+{key_id.hex()}"
        super().__init__(f"the signature of {self.key} {what}")


class UnknownSigner(TlogError):
    """No key that is trusted has signed."""
