"""Attempts: with many, every decision succeeds once; with one, a lost race raises AppendConflict."""

from __future__ import annotations

from typing import Any

import eventfold as ef
from examples.recipes.conflicts import Article, ArticleEdited, Queue, draw
from tests.recipes.crowd import RACERS, Crowd, Threads, done, refused


def test_the_patient_all_get_a_number(crowd: Crowd) -> None:
    """With enough attempts, 32 racers draw 32 numbers."""
    answers = crowd.race(*[lambda store: store.using(attempts=1_000).decide(draw, Queue("bakery"))] * RACERS)
    assert sorted(answer.events[0].event.number for answer in done(answers)) == list(range(1, RACERS + 1))


def test_a_caller_without_retries_gets_the_conflict(crowd: Crowd) -> None:
    """With one attempt each, racers that lose to another handle get AppendConflict and write nothing."""
    answers = crowd.race(*[lambda store: store.using(attempts=1).decide(draw, Queue("bakery"))] * RACERS)
    assert len(done(answers)) + len(refused(answers, ef.AppendConflict)) == RACERS
    numbers = [recorded.event.number for recorded in crowd.store.read()]
    assert numbers == list(range(1, len(done(answers)) + 1))
    assert numbers


def test_the_locked_are_done_at_once(crowd: Crowd) -> None:
    """Under a lock 32 draw 32 numbers, each at the first attempt."""

    def by_thread(store: ef.Store) -> Any:
        with store.lock(Queue("bakery"), timeout=60):
            return store.using(attempts=1).decide(draw, Queue("bakery"))

    async def by_task(store: ef.AsyncStore) -> Any:
        async with store.lock(Queue("bakery"), timeout=60):
            return await store.using(attempts=1).decide(draw, Queue("bakery"))

    answers = crowd.race(*[by_thread if isinstance(crowd, Threads) else by_task] * RACERS)
    assert sorted(answer.events[0].event.number for answer in done(answers)) == list(range(1, RACERS + 1))


def test_an_edit_is_refused_if_someone_else_was_quicker(crowd: Crowd) -> None:
    """Thirty-two edit what they read at one position: one is saved."""
    crowd.store.append(ArticleEdited("news", "first"), ArticleEdited("other", "first"))
    seen = crowd.store.head()
    answers = crowd.race(
        *[
            lambda store, n=n: store.append(ArticleEdited("news", f"by {n}"), unless=Article("news"), after=seen)
            for n in range(RACERS)
        ]
    )
    assert len(done(answers)) == 1
    assert len(refused(answers, ef.AppendConflict)) == RACERS - 1
