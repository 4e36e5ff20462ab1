"""The bytes of bodies that are held at once: a share for each caller, and a bound for all."""

from __future__ import annotations

import pytest

from eventfold.server.access.errors import ServerBusy, TooManyCalls
from eventfold.server.bodies import Bodies, HeldBody


def test_a_caller_has_half_of_the_bytes_and_all_together_no_more_than_the_bound() -> None:
    """What was refused is not counted, and what ended no more."""
    bodies = Bodies(100, 30)
    one, other, third = (HeldBody(bodies, who) for who in ("one", "other", "third"))
    one.add(50)
    with pytest.raises(TooManyCalls, match="50 bytes"):
        HeldBody(bodies, "one").add(1)
    other.add(45)
    third.add(5)
    with pytest.raises(ServerBusy, match="100 bytes"):
        third.add(1)
    one.release()
    one.release()
    third.add(45)
    for each in (other, third):
        each.release()
    HeldBody(bodies, "one").add(50)


def test_one_body_of_the_greatest_size_fits_however_small_the_bound_is() -> None:
    """Otherwise no client could send it."""
    HeldBody(Bodies(10, 30), "one").add(30)
