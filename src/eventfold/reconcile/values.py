"""Values of events and rows as keys, numbers and moments: exact, and the same for equal values of any source.

Knows: Python values, JSON. Does not know: where a value comes from.
"""

from __future__ import annotations

from datetime import date, datetime, time, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

from eventfold.errors import InvalidInput
from eventfold.reconcile.result import EXACT

MISSING: Any = object()
MAX_EXPONENT = 300  # of a number: others cannot be added up exactly in reasonable memory


def key_of(value: Any) -> str:
    """Return a value as a key: text as it is, whole numbers without a point; the absence of a value is empty."""
    if value is None or value is MISSING:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal) and is_moderate(value):
        return format(value.to_integral_value() if value == value.to_integral_value() else EXACT.normalize(value), "f")
    return str(value)


def is_moderate(value: Decimal) -> bool:
    """Whether a number is finite, and neither so large nor so precise that its digits fill the memory."""
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_EXPONENT and value.adjusted() <= MAX_EXPONENT


def number_of(value: Any, where: str) -> Decimal:
    """Return a number, or a text of one, exactly. Raises InvalidInput, which says where it is."""
    try:
        if isinstance(value, bool) or value is None or value is MISSING:
            raise InvalidOperation
        found = Decimal(repr(value) if isinstance(value, float) else str(value).strip())
        if not is_moderate(found):
            raise InvalidOperation
    except InvalidOperation:
        what = "nothing" if value is MISSING else repr(value)[:60]
        raise InvalidInput(
            f"{where} is {what}, which is no number.", "Name another field, or leave such events and rows out."
        ) from None
    return found


def whole_number_of(value: Any, where: str) -> int:
    """Return a whole number. Raises InvalidInput, which says where it is."""
    found = number_of(value, where)
    if found != found.to_integral_value():
        raise InvalidInput(f"{where} is {found}, which is no whole number.", "Name another column.")
    return int(found)


def moment_of(value: Any, where: str, zone: tzinfo) -> datetime:
    """Return a moment; without a time zone it is one of `zone`, and a date is its beginning there.

    Raises InvalidInput, which says where it is.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = MISSING
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise InvalidInput(
            f"{where} is no time.", "Name a column of times: 2026-11-23T10:15Z, 2026-11-23 10:15:00, or a date."
        )
    return value if value.tzinfo is not None else value.replace(tzinfo=zone)


def at_path(value: Any, path: str) -> Any:
    """Return what a path of names, `customer.id`, leads to in JSON; MISSING if it leads nowhere."""
    for name in path.split(".") if path else ():
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]  # pyright: ignore[reportUnknownVariableType]
    return value  # pyright: ignore[reportUnknownVariableType]
