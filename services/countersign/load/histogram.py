"""How long something took, many times, in memory that does not grow with how often.

Counts in buckets that are each 1 per cent wider than the one before, as HdrHistogram has them with two
significant digits. A percentile is told as its bucket's upper end: never less than it was, and at most
1 per cent more.
"""

import math
from collections import Counter
from typing import Any, Final

STEP: Final = 1.01
SMALLEST_S: Final = 1e-6
"""What is shorter is told as this long."""
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Histogram:
    """Durations of one kind."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.max_s = 0.0

    def add(self, took_s: float) -> None:
        """One more."""
        self.count += 1
        self.max_s = max(self.max_s, took_s)
        self._buckets[math.ceil(math.log(max(took_s, SMALLEST_S) / SMALLEST_S, STEP))] += 1

    def percentile_s(self, share: float) -> float:
        """The least duration that this share of them did not pass; 0 when there are none."""
        wanted = max(1, math.ceil(share * self.count))
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(_upper_s(bucket), self.max_s)
        return 0.0

    def document(self) -> dict[str, Any]:
        """For programs: milliseconds, and each bucket that is not empty with its upper end."""
        told = {name: _ms(self.percentile_s(share)) for name, share in PERCENTILES.items()}
        buckets = [[_ms(_upper_s(one)), self._buckets[one]] for one in sorted(self._buckets)]
        return {"count": self.count, **told, "max": _ms(self.max_s), "buckets": buckets}


def _upper_s(bucket: int) -> float:
    return float(SMALLEST_S * STEP**bucket)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
