"""No more seats are sold than there are, and no seat twice."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.testing import given
from examples.recipes.limited_seats import (
    BookingCancelled,
    Seat,
    SeatGivenBack,
    SeatsBooked,
    SeatTaken,
    Show,
    ShowAnnounced,
    SoldOut,
    book,
    cancel,
    take,
)
from tests.recipes.crowd import RACERS, Crowd, done, refused


@pytest.mark.parametrize(("seats", "each"), [(10, 1), (21, 2), (100, 3)])
def test_a_show_is_never_oversold(crowd: Crowd, seats: int, each: int) -> None:
    """Thirty-two people book at once: as many get seats as there are, and at no position of the log are more booked."""
    crowd.store.append(ShowAnnounced("hamlet", seats))
    answers = crowd.race(
        *[
            lambda store, n=n: store.using(attempts=1_000).decide(book, Show("hamlet"), f"b-{n}", seats=each)
            for n in range(RACERS)
        ]
    )
    assert len(done(answers)) == min(RACERS, seats // each)
    assert len(refused(answers, SoldOut)) == RACERS - min(RACERS, seats // each)
    assert all(step.state.free >= 0 for step in crowd.store.history(Show("hamlet")))


def test_a_cancelled_seat_is_sold_again(crowd: Crowd) -> None:
    """Sixteen cancel while 16 book a full show: it is never more than full."""
    crowd.store.append(ShowAnnounced("hamlet", 16), *[SeatsBooked("hamlet", f"old-{n}", 1) for n in range(16)])
    patient = {"attempts": 1_000}
    answers = crowd.race(
        *[
            lambda store, n=n: (
                store.using(**patient).decide(cancel, Show("hamlet"), f"old-{n}")
                if n < 16
                else store.using(**patient).decide(book, Show("hamlet"), f"new-{n}", seats=1)
            )
            for n in range(RACERS)
        ]
    )
    refused(answers, SoldOut)
    free = [step.state.free for step in crowd.store.history(Show("hamlet"))]
    assert min(free) >= 0
    assert free[-1] == 16 - sum("new" in str(answer) for answer in done(answers))


def test_a_numbered_seat_has_one_guest(crowd: Crowd) -> None:
    """Thirty-two guests want two adjacent seats each, of eight: a seat has one guest, and a guest both or none."""
    answers = crowd.race(
        *[
            lambda store, n=n: store.using(attempts=1_000).decide(
                take, Seat("hamlet", str(n % 8)), Seat("hamlet", str((n + 1) % 8)), guest=f"g-{n}"
            )
            for n in range(RACERS)
        ]
    )
    refused(answers, SoldOut)
    taken = [recorded.event for recorded in crowd.store.read(ef.Query.of(types=SeatTaken))]
    assert len({seat.seat for seat in taken}) == len(taken) == 2 * len(done(answers))


def test_other_seats_do_not_conflict(crowd: Crowd) -> None:
    """Thirty-two guests take 32 seats of one show, each at the first attempt."""
    answers = crowd.race(
        *[lambda store, n=n: store.decide(take, Seat("hamlet", str(n)), guest=f"g-{n}") for n in range(RACERS)]
    )
    assert [answer.attempts for answer in done(answers)] == [1] * RACERS


def test_the_rules() -> None:
    """Test the rules of booking and seats, without a race."""
    hall = given(ShowAnnounced("hamlet", 3))
    hall.when(book, Show("hamlet"), "b-1", seats=2).then(SeatsBooked("hamlet", "b-1", 2))
    hall.when(book, Show("hamlet"), "b-1", seats=2).nothing()
    hall.when(book, Show("hamlet"), "b-2", seats=2).raises(SoldOut)
    hall.when(book, Show("hamlet"), "b-3", seats=0).raises(SoldOut)
    hall.when(cancel, Show("hamlet"), "b-1").then(BookingCancelled("hamlet", "b-1")).state(Show("hamlet")).has(free=3)
    hall.when(cancel, Show("hamlet"), "b-1").nothing()
    seat = given(SeatTaken("hamlet", "A1", "ada"))
    seat.when(take, Seat("hamlet", "A1"), guest="ada").nothing()
    seat.given(SeatGivenBack("hamlet", "A1")).state(Seat("hamlet", "A1")).has(guest=None)
