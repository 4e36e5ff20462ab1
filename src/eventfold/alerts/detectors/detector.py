"""What a statistic of an alert promises: plain data that is folded from events, and a pure verdict.

Knows: numbers and moments in microseconds. Does not know: events, alerts, a clock, where it is stored.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar, cast

import msgspec

from eventfold.errors import InvalidInput

D = TypeVar("D", bound="Detector")
SMALL = 2**31  # ints up to here are added as they are: billions of them are fewer than 2**63
EXACT = 2**53  # the greatest number up to which a float has each integer
_GREATEST = 1e150  # its square is a float


class Detector(msgspec.Struct, kw_only=True):
    """The base class of statistics: `class Longest(ef.Detector)` with fields, a method that `evolve` calls, `fires`.

    A detector is plain data: numbers, texts, lists and dicts of them, few enough that a row of a table holds them. The
    same calls give the same data, in one go or with the data stored and read in between. Times are microseconds since
    1970 in UTC.

    `now` is the time of the event that is being folded; it is set before each `evolve`, and before `judge`. A method
    that changes the detector uses `now` as it stands, and never what it was before.
    """

    now: int = 0

    def begin(self) -> None:
        """Start to watch at `now`, without an event. A detector that reports silence counts from here."""

    def fires(self, now: int) -> str | None:
        """Return the reason, one sentence with its numbers, if this statistic is out of bounds at `now`; else None.

        Pure: it changes nothing, and is the same for the same data and `now`.
        """
        return None

    def due(self, now: int) -> int | None:
        """Return the first moment after `now` at which `fires` may change between None and a reason without an event.

        None if no moment is: then only another event changes it.
        """
        return None

    def can_fire(self) -> bool:
        """Return whether `fires` can ever return a reason: False if no limit was given, so that `judge` must decide."""
        return True


def as_field(detector: D) -> D:
    """Return the default of a class's field: each instance of the class gets a copy of this detector.

    Raises InvalidInput if a value of the detector is not of its field's type, or cannot be stored.
    """
    try:
        msgspec.json.decode(msgspec.json.encode(detector), type=type(detector))
    except (msgspec.MsgspecError, OverflowError, TypeError) as error:
        raise InvalidInput(
            f"A {type(detector).__name__} cannot be stored as it is declared: {error}.",
            "Give its arguments values of the types in its signature.",
        ) from None
    field = msgspec.field(default_factory=cast("Callable[[], Any]", partial(copy.deepcopy, detector)))
    return cast("D", field)


def changed_verdict(detector: Detector, now: int, moments: Iterable[int | None]) -> int | None:
    """Return the first of some moments after `now` at which the detector's verdict differs from that at `now`."""
    fires = detector.fires(now) is not None
    ahead = sorted({moment for moment in moments if moment is not None and moment > now})
    return next((moment for moment in ahead if (detector.fires(moment) is not None) != fires), None)


def check_numbers(**given: object) -> None:
    """Raise InvalidInput unless each of the arguments that were given is a finite number."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or plain_number(value) is None:
            raise InvalidInput(f"{name}={value!r:.80} is not a finite number.", "Give a number.")


def plain_number(value: object) -> int | float | None:
    """Return a number as JSON has it: an int up to 2**53 as it is, any other as a float; None if it is not finite.

    A Decimal becomes the nearest float, and a number beyond 1e150 counts as 1e150, so that squares are finite. Raises
    InvalidInput if the value is no number.
    """
    if isinstance(value, int):
        if -EXACT <= value <= EXACT:
            return int(value)
    elif not isinstance(value, (float, Decimal)):
        raise InvalidInput(
            f"A detector was given {value!r:.80}, which is no number.",
            "Give it an int, a float or a Decimal; leave out events that have no value.",
            value=repr(value)[:80],
        )
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    try:
        number = float(value)
    except OverflowError:  # an int beyond every float
        number = _GREATEST if value > 0 else -_GREATEST
    if math.isinf(number) and not isinstance(value, float):
        number = math.copysign(_GREATEST, number)
    return min(max(number, -_GREATEST), _GREATEST) if math.isfinite(number) else None


__all__ = ["EXACT", "SMALL", "Detector", "as_field", "changed_verdict", "check_numbers", "plain_number"]
