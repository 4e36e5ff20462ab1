"""Back-off: pauses grow up to a bound, and jitter stays within its own."""

from __future__ import annotations

import pytest

from eventfold.core.backoff import Backoff, with_jitter
from eventfold.log.append import MAX_ATTEMPTS, UNCONFIRMED_BACKOFF
from eventfold.log.decide import CONFLICT_BACKOFF
from eventfold.processes.effects import RetryPolicy


def test_pauses_are_doubled_up_to_the_longest() -> None:
    """The first, then twice as long each; after any number of failures never longer than the longest."""
    backoff = Backoff(0.05, 5.0)
    assert [backoff.pause(failures) for failures in range(1, 9)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert backoff.pause(1_000_000) == 5.0


def test_the_factor_may_be_another() -> None:
    """Four times as long with each failure."""
    assert [Backoff(1.0, 20.0, factor=4.0).pause(failures) for failures in (1, 2, 3, 4)] == [1.0, 4.0, 16.0, 20.0]


def test_an_unconfirmed_append_is_repeated_for_two_and_a_half_seconds() -> None:
    """20 ms at first; the sum of the pauses between eight attempts is 2.54 s."""
    pauses = [UNCONFIRMED_BACKOFF.pause(failures) for failures in range(1, MAX_ATTEMPTS)]
    assert pauses[0] == 0.02
    assert sum(pauses) == pytest.approx(2.54)


def test_a_decision_waits_from_2_to_64_milliseconds() -> None:
    """Doubled with each conflict, also with more attempts than a float has powers of two."""
    pauses = [CONFLICT_BACKOFF.pause(conflicts) for conflicts in (1, 2, 6, 7, 5_000)]
    assert pauses == [0.002, 0.004, 0.064, 0.064, 0.064]


def test_jitter_stays_within_its_spread() -> None:
    """From nothing to twice as long by default; a quarter more or less for effects."""
    assert all(0.0 <= with_jitter(0.5) <= 1.0 for _ in range(100))
    assert all(0.75 <= with_jitter(1.0, spread=0.25) <= 1.25 for _ in range(100))
    assert all(3.0 <= RetryPolicy(first_delay=1.0).pause(2) <= 5.0 for _ in range(100))
