"""How often a test of chance repeats: some times in the suite, more often with EVENTFOLD_SLOW=1, as by `make soak`.

Knows: an environment variable. Does not know: what is repeated.
"""

from __future__ import annotations

import os

IS_SLOW = "EVENTFOLD_SLOW" in os.environ


def repetitions(some: int, more: int) -> int:
    """Return `some`, or `more` with EVENTFOLD_SLOW=1 (soak/slow_tests.py runs these tests so)."""
    return more if IS_SLOW else some
