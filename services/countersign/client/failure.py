"""The error of everything that a requester verifies."""


class VerificationError(Exception):
    """Something does not verify; `reason` is stable, the text says what it means."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
