"""Exponential back-off: how long a caller waits between attempts.

Knows: seconds. Does not know: what is attempted, how a caller waits.
"""

from __future__ import annotations

import random

import msgspec

MAX_EXPONENT = 30  # by then every pause has reached the longest; without a bound the power would overflow


class Backoff(msgspec.Struct, frozen=True):
    """The pauses between attempts, in seconds: `first`, then `factor` times as long each, up to `longest`."""

    first: float
    longest: float
    factor: float = 2.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after this many failed attempts in a row, 1 or more."""
        return min(self.first * self.factor ** min(failures - 1, MAX_EXPONENT), self.longest)


def with_jitter(seconds: float, spread: float = 1.0) -> float:
    """Return a random time, `seconds` on average, so that callers that failed together do not try again together.

    It differs from `seconds` by at most `spread` times that.
    """
    return seconds * random.uniform(1.0 - spread, 1.0 + spread)  # noqa: S311 (not a secret)
