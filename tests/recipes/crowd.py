"""32 racers at one store: threads or tasks, on two handles each, all at once.

A racer is a function of a store that says what it does: `lambda store: store.decide(draw, Queue("q"))`. What it
returns, or raises, is its answer. Threads meet inside their first decision: no thread writes before all have read.
Knows: stores, threads, loops. Does not know: any recipe.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import eventfold as ef
from eventfold.engines import open_engine
from eventfold.testing.faults import Faulty

RACERS = 32
PATIENCE = 60.0  # seconds after which a race counts as hung

Racer = Callable[[Any], Any]


class Crowd:
    """Racers at one address. `store` is a plain handle, for what happens before and after a race."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url, self.options = url, options
        self.store = ef.Store(url, **options)

    def race(self, *racers: Racer) -> list[Any]:
        """Run all racers at once. Return what each returned or raised, in order."""
        raise NotImplementedError

    def another(self) -> ef.Store:
        """Open another handle on the same store."""
        return ef.Store(self.url, **self.options)

    def another_async(self) -> ef.AsyncStore:
        """Open another async handle. Appends are combined on a thread, in memory as well."""
        engine = open_engine(self.url, "async", True, dict(self.options))
        return ef.AsyncStore(Faulty(engine, blocks=not engine.capabilities.suspends))

    def close(self) -> None:
        """Close the plain handle."""
        self.store.close()


class Threads(Crowd):
    """One thread per racer; half of them share the plain handle, each other one opens its own."""

    def race(self, *racers: Racer) -> list[Any]:
        """See Crowd."""
        answers: list[Any] = [None] * len(racers)
        meeting = threading.Barrier(len(racers))

        def run(index: int, racer: Racer, store: ef.Store) -> None:
            try:
                answers[index] = racer(Meeting(store, meeting))
            except Exception as error:  # noqa: BLE001 (an error is an answer, too)
                answers[index] = error

        with self.another() as other:
            threads = [
                threading.Thread(target=run, args=(index, racer, other if index % 2 else self.store), daemon=True)
                for index, racer in enumerate(racers)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert not any(thread.is_alive() for thread in threads), "a racer hangs"
        return answers


class Meeting:
    """A store whose first decision waits, after reading, until all others have read as well."""

    def __init__(self, store: ef.Store, meeting: threading.Barrier) -> None:
        self._store, self._meeting = store, [meeting]

    def using(self, **options: Any) -> Meeting:
        """See Store.using."""
        view = copy.copy(self)
        view._store = self._store.using(**options)
        return view

    def decide(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See Store.decide."""

        @functools.wraps(function)
        def together(*states: Any, **more: Any) -> Any:
            self._meet()
            return function(*states, **more)

        return self._store.decide(together, *args, **kwargs)

    def append(self, *events: Any, **options: Any) -> Any:
        """See Store.append."""
        self._meet()
        return self._store.append(*events, **options)

    def lock(self, *asked: Any, **options: Any) -> AbstractContextManager[None]:
        """See Store.lock. All wait for each other before the first locks; while one holds the lock they could not."""
        self._meet()
        return self._store.lock(*asked, **options)

    def _meet(self) -> None:
        while self._meeting:
            self._meeting.pop().wait(PATIENCE)


class Tasks(Crowd):
    """One task per racer, on one loop and two handles. Appends are combined on a thread, in memory as well."""

    def race(self, *racers: Racer) -> list[Any]:
        """See Crowd."""
        return asyncio.run(asyncio.wait_for(self._race(racers), PATIENCE))

    async def _race(self, racers: Sequence[Racer]) -> list[Any]:
        async with self.another_async() as one, self.another_async() as other:

            async def run(racer: Racer, store: ef.AsyncStore) -> Any:
                return await racer(store)

            tasks = [run(racer, other if index % 2 else one) for index, racer in enumerate(racers)]
            return await asyncio.gather(*tasks, return_exceptions=True)


def done(answers: Sequence[Any]) -> list[Any]:
    """Return the results that are not errors."""
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def refused(answers: Sequence[Any], kind: type[BaseException]) -> list[BaseException]:
    """Return the results that are this error; raise any other error."""
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not isinstance(error, kind):
            raise error
    return errors
