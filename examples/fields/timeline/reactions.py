"""Reactions to posts, drawn at random from a seed: nothing but ids, times and totals of the posts is used.

The source has each post's totals of likes and shares, not who reacted or when. So one reaction is drawn for a thousand
counted ones, from 50,000 people. The delay after the post is flat for five minutes and then a power law: the memory
kernel of SEISMIC (Zhao et al., KDD 2015). Its exponent is chosen as 0.242; the authors' package has 0.2315. 3 % of the
reactions are withdrawn, after a day on average, and 1 % of the posts within 30 days. Comments are in no source at all:
one is drawn for four drawn shares. Each of these numbers but the kernel is chosen.

Knows: random numbers. Does not know: events, stores.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from math import log
from typing import NamedTuple

SEED = 2018
REAL_PER_DRAWN = 1_000  # reactions
PEOPLE = 50_000
THETA = 0.242
FLAT_S = 300.0
LONGEST_S = 1e9
SHARES_PER_COMMENT = 4


class Counted(NamedTuple):
    """A post as the source has it: its id, its time, and its totals on the day they were collected."""

    id: str
    at: datetime
    likes: int
    shares: int
    reply: bool


class Action(NamedTuple):
    """What happened to a post: `person` is 0 for the account itself, `comment` 0 for all but comments."""

    at: datetime
    post: str
    kind: str
    person: int
    comment: int = 0


def draw(posts: Iterable[Counted], until: datetime) -> list[Action]:
    """Return the posts and the reactions to them before `until` (exclusive), by time; posts come in order of time."""
    chance = random.Random(SEED)  # noqa: S311 (chance, not a secret)
    drawn: list[Action] = []
    for post in posts:
        gone = post.at + timedelta(hours=1 + 719 * chance.random()) if chance.random() < 0.01 else None
        end = min(until, gone) if gone else until
        drawn.append(Action(post.at, post.id, "PostPublished", 0))
        if gone and gone < until:
            drawn.append(Action(gone, post.id, "PostWithdrawn", 0))
        for given, withdrawn, total in (
            ("PostLiked", "LikeWithdrawn", post.likes),
            ("PostShared", "ShareWithdrawn", post.shares),
        ):
            who: set[int] = set()
            while len(who) < total // REAL_PER_DRAWN:
                person = 1 + int(chance.random() * PEOPLE)
                if person not in who:
                    who.add(person)
                    drawn += _given(chance, Action(post.at, post.id, given, person), withdrawn, end)
        drawn += _comments(post, end)
    drawn.sort(key=lambda action: (action.at, action.post, action.kind, action.person, action.comment))
    return drawn


def _given(chance: random.Random, action: Action, withdrawn: str, end: datetime) -> Iterator[Action]:
    """Yield a reaction some time after the post, and its withdrawal if there is one; both before `end`."""
    at = action.at + timedelta(seconds=round(delay_s(chance.random())))
    undone = at + timedelta(seconds=round(-86_400 * log(1 - chance.random()))) if chance.random() < 0.03 else None
    if at < end:
        yield action._replace(at=at)
        if undone and undone < end:
            yield action._replace(at=undone, kind=withdrawn)


def _comments(post: Counted, end: datetime) -> Iterator[Action]:
    """Yield the comments on one post, drawn from a seed of its own, so that the reactions do not depend on them."""
    chance = random.Random(f"{SEED}/{post.id}")  # noqa: S311 (chance, not a secret)
    for number in range(1, 1 + post.shares // REAL_PER_DRAWN // SHARES_PER_COMMENT):
        person = 1 + int(chance.random() * PEOPLE)
        yield from _given(chance, Action(post.at, post.id, "CommentPosted", person, number), "CommentWithdrawn", end)


def delay_s(share: float) -> float:
    """The delay in seconds that this share of the reactions does not exceed."""
    flat = THETA / (1 + THETA)
    if share < flat:
        return FLAT_S * share / flat
    return min(FLAT_S * ((1 - share) * (1 + THETA)) ** (-1 / THETA), LONGEST_S)
