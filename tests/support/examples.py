"""How many examples a property draws: so many with each change, ten times as many in the long form."""

from hypothesis import settings


def examples(times: float) -> settings:
    """So many times the number of `tests/conftest.py`: some examples cost more, or find less, than others."""
    return settings(max_examples=max(1, round(settings().max_examples * times)))
