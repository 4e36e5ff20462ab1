"""Rows compare by value: order, filters, keys and digests of decimals, moments, dates, UUIDs, enums and booleans."""

from __future__ import annotations

from datetime import date, timedelta, timezone
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection
from eventfold.testing.conformance.target.values import NOON, Item, filled

__all__ = ["filled"]

BERLIN, DENVER = timezone(timedelta(hours=2)), timezone(timedelta(hours=-6))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("price", "1.0"),
        ("price", 1.5),
        ("price", True),
        ("item", 7),
        ("at", "2026-06-01"),
        ("at", date(2026, 6, 1)),
        ("day", NOON),
        ("uuid", "0" * 32),
        ("sold", 1),
        ("size", 3),
    ],
)
def test_a_filter_of_another_type_is_refused_by_name(filled: ef.Store, column: str, value: Any) -> None:
    """The same error on every target, before a query runs."""
    with pytest.raises(InvalidProjection, match=f"{column}="):
        filled.rows(Item, {column: value})
