"""Limited seats.

Explained in docs/how-to/recipes/limited-seats.md, which shows the same code.
"""

from __future__ import annotations

import eventfold as ef


class ShowAnnounced(ef.Event):
    show: ef.Tag
    seats: int


class SeatsBooked(ef.Event):
    show: ef.Tag
    booking: ef.Tag
    seats: int


class BookingCancelled(ef.Event):
    show: ef.Tag
    booking: ef.Tag


class Show(ef.State):
    show: ef.Tag
    seats: int = 0
    bookings: dict[str, int] = {}

    @property
    def free(self) -> int:
        return self.seats - sum(self.bookings.values())

    def evolve(self, event: ShowAnnounced | SeatsBooked | BookingCancelled) -> None:
        match event:
            case ShowAnnounced():
                self.seats = event.seats
            case SeatsBooked():
                self.bookings[event.booking] = event.seats
            case BookingCancelled():
                self.bookings.pop(event.booking, None)


class SoldOut(Exception):
    pass


def book(show: Show, booking: str, seats: int) -> list[SeatsBooked]:
    if booking in show.bookings:
        return []  # already booked
    if not 0 < seats <= show.free:
        raise SoldOut(show.show, show.free)
    return [SeatsBooked(show.show, booking, seats)]


def cancel(show: Show, booking: str) -> list[BookingCancelled]:
    return [BookingCancelled(show.show, booking)] if booking in show.bookings else []


class SeatTaken(ef.Event):
    show: ef.Tag
    seat: ef.Tag
    guest: ef.Tag


class SeatGivenBack(ef.Event):
    show: ef.Tag
    seat: ef.Tag


class Seat(ef.State):
    show: ef.Tag
    seat: ef.Tag
    guest: str | None = None

    def evolve(self, event: SeatTaken | SeatGivenBack) -> None:
        self.guest = event.guest if isinstance(event, SeatTaken) else None


def take(*seats: Seat, guest: str) -> list[SeatTaken]:
    taken = [seat.seat for seat in seats if seat.guest not in (None, guest)]
    if taken:
        raise SoldOut(*taken)  # all seats or none
    return [SeatTaken(seat.show, seat.seat, guest) for seat in seats if seat.guest is None]
