"""What follows when a handler fails: tries again, stops or parks, says why, and loses nothing."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection


def test_parking_what_has_no_key_needs_parking_at_all() -> None:
    """It would be a contradiction."""
    with pytest.raises(InvalidProjection, match='Give on_error="park" as well'):

        class Odd(ef.Projection, without_key="park"):
            carrier: str
