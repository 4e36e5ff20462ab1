"""What a writer of a cluster does: appends of every kind, each under a condition that it read, repeated while unknown.

Knows: a log to append to, and the record of a client. Does not know: which log, what is done to it meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventfoldError, StoreDamaged
from soak.cluster.facts import TYPES, fact
from soak.cluster.record import Recorder, now

GROUPS, ITEMS = 4, 6  # few, so that writers meet
REPEATS = 40  # of an append whose outcome is unknown; with pauses, longer than an election
PAUSE_S = 0.3  # after an error
LARGEST = 120  # events of one append
READ_BACK = 60  # positions before the head that a read includes


class Appending(Protocol):
    """A log, as a writer uses it. Errors are those of `eventfold.errors`."""

    async def head(self) -> int:
        """Return the newest position."""
        ...

    async def append(self, events: Sequence[NewEvent], unless: Sequence[ConditionClause], key: str | None) -> Receipt:
        """Append the events under a condition."""
        ...

    async def read(self, query: Query, after: int, until: int) -> list[str]:
        """Return the ids, in hex, of the matching events in (after, until]."""
        ...


@dataclass(frozen=True)
class Step:
    """One operation: events, the queries of its condition, its key, and whether it is repeated after its receipt."""

    op: str
    events: tuple[NewEvent, ...]
    queries: tuple[Query, ...] = ()
    key: str | None = None
    again: bool = False


def event(dice: random.Random, op: str, index: int) -> NewEvent:
    """Return an event of a random type, group and item."""
    group, item = f"g{dice.randrange(GROUPS)}", f"i{dice.randrange(ITEMS)}"
    return fact(dice.choice(TYPES), group, item, op, index, "x" * dice.randrange(200))


def query(dice: random.Random) -> Query:
    """Return a query of a random shape: a tag, a type with a tag, two tags, alternatives, a type, or every event."""
    group, item = f"group:g{dice.randrange(GROUPS)}", f"item:i{dice.randrange(ITEMS)}"
    kind = dice.choice(TYPES)
    shapes = (
        Query.of(tags=group),
        Query.of(tags=group),
        Query.of(types=kind, tags=group),
        Query.of(tags=[group, item]),
        Query((Item((kind,), (item,)), Item((), (group, item)))),
        Query.of(types=kind),
        Query(),
    )
    return dice.choice(shapes)


def plan(dice: random.Random, name: str, number: int) -> Step:
    """Return one random operation."""
    op, chance = f"{name}.{number}", dice.random()
    if chance < 0.3:
        return Step(op, (event(dice, op, 0),))
    if chance < 0.4:
        return Step(op, tuple(event(dice, op, index) for index in range(dice.randrange(2, LARGEST))))
    events = tuple(event(dice, op, index) for index in range(dice.choice((1, 1, 2, 5))))
    if chance < 0.8:
        return Step(op, events, tuple(query(dice) for _ in range(dice.choice((1, 1, 2)))))
    return Step(op, events, (), op if chance < 0.9 else None, again=True)


def fresh(step: Step) -> tuple[NewEvent, ...]:
    """Return the events of a step under new ids: what a client that has only the request key would append again."""
    return tuple(NewEvent.of(each.type, each.data, version=each.version, tags=each.tags) for each in step.events)


class Writer:
    """Runs steps on a log and records them. `attempts` limits the repeats of a call whose outcome is unknown."""

    def __init__(self, log: Appending, recorder: Recorder, dice: random.Random, *, pause: float = PAUSE_S) -> None:
        self._log, self._recorder, self._dice, self._pause = log, recorder, dice, pause

    async def perform(self, step: Step, after: int | None = None) -> bool:
        """Run a step, with its repeats, under conditions after a position that is read here, or was read before.

        Returns whether it was acknowledged.
        """
        unless = [ConditionClause(each, await self._look() if after is None else after) for each in step.queries]
        done = await self._append(step, step.events, unless)
        if done and step.again:
            events = fresh(step) if step.key and self._dice.random() < 0.5 else step.events
            await self._append(step, events, unless)
        return done

    async def _look(self) -> int:
        began = now()
        head = await self._log.head()
        self._recorder.looked(began, head)
        return head

    async def read(self) -> None:
        """Read a part of the log by a random query, and record what was returned."""
        head = await self._look()
        asked, after = query(self._dice), max(0, head - self._dice.randrange(1, READ_BACK))
        self._recorder.read(asked, after, head, await self._log.read(asked, after, head))

    async def _append(self, step: Step, events: Sequence[NewEvent], unless: Sequence[ConditionClause]) -> bool:
        for _ in range(REPEATS):
            number = self._recorder.call(step.op, events, unless, step.key)
            try:
                receipt = await self._log.append(events, unless, step.key)
            except AppendConflict as error:
                self._recorder.failed(step.op, number, "conflict", error)
                return False
            except AppendUnconfirmed as error:
                self._recorder.failed(step.op, number, "unknown", error)
            except EventfoldError as error:
                self._recorder.failed(step.op, number, "refused", error)
                if isinstance(error, StoreDamaged):
                    raise
            except Exception as error:
                self._recorder.failed(step.op, number, "unknown", error)
                raise
            else:
                self._recorder.acknowledged(step.op, number, receipt)
                return True
            await asyncio.sleep(self._pause * self._dice.random())
        return False


async def work(
    log: Appending, recorder: Recorder, name: str, seed: str, until: Callable[[], bool], pace: float = 0.0,
    planned: Callable[[random.Random, str, int], Step] = plan,
) -> None:  # fmt: skip
    """Perform random steps, and some reads, until the condition holds. Errors of reads are waited out."""
    dice, number = random.Random(seed), 0
    writer = Writer(log, recorder, dice)
    while not until():
        number += 1
        try:
            if dice.random() < 0.1:
                await writer.read()
            else:
                await writer.perform(planned(dice, name, number))
        except StoreDamaged as error:  # nothing is damaged in these rounds
            recorder.foreign(error)
        except EventfoldError:  # of a read: the store is unreachable
            await asyncio.sleep(PAUSE_S * dice.random())
        except Exception as error:  # noqa: BLE001 - an error of another library is a violation
            recorder.foreign(error)
            await asyncio.sleep(PAUSE_S)
        if pace:
            await asyncio.sleep(pace * dice.random())


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Return a condition that holds after some seconds."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() > ends


async def together(works: Sequence[Awaitable[Any]]) -> None:
    """Run several works to their ends."""
    await asyncio.gather(*works)
