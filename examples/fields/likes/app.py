"""Ratings of films, each counted once, and reviews that are hidden with reasons and can be complained about.

The rule: a person has one rating of a film, which can be changed and withdrawn; a double click changes nothing, and a
rating whose review is hidden stays as it is until the review is restored. The decision is over the pair of person and
film alone, so the most popular film has no queue. Who hides a review states the reasons in the same step (Regulation
(EU) 2022/2065, article 17), and a complaint is possible for six months (article 20), which a timer in the log ends.

Knows: events, states, decisions, a process, read models. Does not know: where ratings come from. A rating is counted in
half stars, 1 to 10, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import eventfold as ef
from eventfold.processes import after, cancel

COMPLAINT_DAYS = 184  # six months, at the longest


class FilmListed(ef.Event):
    film: ef.Tag
    title: str


class Rated(ef.Event):
    film: ef.Tag
    person: ef.Tag
    half_stars: int
    at: datetime


class RatingChanged(ef.Event):
    film: ef.Tag
    person: ef.Tag
    half_stars: int
    before: int
    at: datetime


class RatingWithdrawn(ef.Event):
    film: ef.Tag
    person: ef.Tag
    before: int
    at: datetime


class ReviewHidden(ef.Event):
    """A review is not shown any more; `reasons`: the statement of reasons that its author gets."""

    film: ef.Tag
    person: ef.Tag
    reasons: str
    at: datetime


class ComplaintFiled(ef.Event):
    film: ef.Tag
    person: ef.Tag
    at: datetime


class ComplaintClosed(ef.Event):
    """The time for complaints is over."""

    film: ef.Tag
    person: ef.Tag


class ReviewRestored(ef.Event):
    film: ef.Tag
    person: ef.Tag
    reasons: str
    at: datetime


RatingEvent = Rated | RatingChanged | RatingWithdrawn


class Refused(Exception):
    """The rule forbids it."""


class Film(ef.State):
    film: ef.Tag
    title: str | None = None

    def evolve(self, event: FilmListed) -> None:
        self.title = event.title


class Rating(ef.State):
    """The rating of one film by one person: folded from events that have both tags."""

    film: ef.Tag
    person: ef.Tag
    half_stars: int | None = None
    hidden: str | None = None
    complained: bool = False
    closed: bool = False

    def evolve(self, event: RatingEvent | ReviewHidden | ReviewRestored | ComplaintFiled | ComplaintClosed) -> None:
        match event:
            case Rated() | RatingChanged():
                self.half_stars = event.half_stars
            case RatingWithdrawn():
                self.half_stars = None
            case ReviewHidden():
                self.hidden, self.complained, self.closed = event.reasons, False, False
            case ReviewRestored():
                self.hidden = None
            case ComplaintFiled():
                self.complained = True
            case ComplaintClosed():
                self.closed = True


def rate(film: Film, rating: Rating, half_stars: int, at: datetime) -> list[Rated | RatingChanged]:
    if film.title is None:
        raise Refused(f"film {film.film} is not listed")
    if not 1 <= half_stars <= 10:
        raise Refused(f"{half_stars} half stars are not from 1 to 10")
    if rating.hidden is not None:
        raise Refused(f"the review of film {film.film} by person {rating.person} is hidden: {rating.hidden}")
    if rating.half_stars is None:
        return [Rated(film.film, rating.person, half_stars, at)]
    if rating.half_stars == half_stars:
        return []
    return [RatingChanged(film.film, rating.person, half_stars, rating.half_stars, at)]


def withdraw(rating: Rating, at: datetime) -> RatingWithdrawn:
    if rating.half_stars is None or rating.hidden is not None:
        raise Refused(f"person {rating.person} has no rating of film {rating.film} to withdraw")
    return RatingWithdrawn(rating.film, rating.person, rating.half_stars, at)


def hide(rating: Rating, reasons: str, at: datetime) -> list[ReviewHidden]:
    if rating.half_stars is None or not reasons.strip():
        raise Refused("only a review that is there is hidden, and with reasons")
    return [] if rating.hidden else [ReviewHidden(rating.film, rating.person, reasons, at)]


def complain(rating: Rating, at: datetime) -> list[ComplaintFiled]:
    if rating.hidden is None or rating.closed:
        raise Refused(f"person {rating.person} cannot complain about film {rating.film}")
    return [] if rating.complained else [ComplaintFiled(rating.film, rating.person, at)]


def restore(rating: Rating, reasons: str, at: datetime) -> list[ReviewRestored]:
    return [] if rating.hidden is None else [ReviewRestored(rating.film, rating.person, reasons, at)]


class ComplaintTime(Rating, ef.Process, start="beginning"):
    """Ends the time for complaints six months after a review was hidden, unless it is restored before."""

    def react(self, event: ReviewHidden | ReviewRestored) -> Iterator[Any]:
        yield cancel(ComplaintClosed)
        if isinstance(event, ReviewHidden):
            yield after(ComplaintClosed(self.film, self.person), days=COMPLAINT_DAYS)


class FilmScore(ef.Projection):
    """How many people have rated a film, and the sum of their half stars."""

    film: str
    ratings: int = 0
    half_stars: int = 0

    def evolve(self, event: RatingEvent) -> None:
        self.ratings += isinstance(event, Rated) - isinstance(event, RatingWithdrawn)
        self.half_stars += getattr(event, "half_stars", 0) - getattr(event, "before", 0)


class FilmWeek(ef.Projection):
    """First ratings of a film in a week, "2000-W01": what is asked for this week."""

    week: str
    film: str
    ratings: int = 0

    @staticmethod
    def key(event: Rated) -> tuple[str, str]:
        return event.at.strftime("%G-W%V"), event.film

    def evolve(self, event: Rated) -> None:
        self.ratings += 1
