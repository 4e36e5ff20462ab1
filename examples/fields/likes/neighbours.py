"""Films that the same people liked: asked of states, so it is an answer as of now or of any moment.

Knows: events, states. Does not know: where ratings come from.
"""

from __future__ import annotations

from collections import Counter
from datetime import date

import eventfold as ef
from examples.fields.likes.app import Rated, RatingChanged, RatingEvent, RatingWithdrawn

LIKED = 8  # half stars, at least


class Fans(ef.State):
    """Who likes a film: folded from its ratings."""

    film: ef.Tag
    people: set[str] = set()

    def evolve(self, event: RatingEvent) -> None:
        likes = isinstance(event, Rated | RatingChanged) and event.half_stars >= LIKED
        (self.people.add if likes else self.people.discard)(event.person)


class Shelf(ef.State):
    """A person's profile: each film with its half stars."""

    person: ef.Tag
    films: dict[str, int] = {}

    def evolve(self, event: RatingEvent) -> None:
        if isinstance(event, RatingWithdrawn):
            self.films.pop(event.film, None)
        else:
            self.films[event.film] = event.half_stars


def also_liked(store: ef.Store, film: str, *, occurred_until: date | None = None) -> list[tuple[str, int]]:
    """Return the films that people who like this one like, too, with their number, the most first."""
    counted: Counter[str] = Counter()
    for person in store.state(Fans(film), occurred_until=occurred_until).people:
        shelf = store.state(Shelf(person), occurred_until=occurred_until)
        counted.update(other for other, half_stars in shelf.films.items() if half_stars >= LIKED and other != film)
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))
