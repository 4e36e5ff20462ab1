"""After a handler failed: it is retried, stops or parks, reports why, and loses no event."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection


def test_parking_what_has_no_key_needs_parking_at_all() -> None:
    """These two options contradict each other."""
    with pytest.raises(InvalidProjection, match='Give on_error="park" as well'):

        class Odd(ef.Projection, without_key="park"):
            carrier: str
