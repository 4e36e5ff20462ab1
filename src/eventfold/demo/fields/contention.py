"""Contention: many tasks decide at once, with the condition of a decision and, for comparison, without it.

Knows: AsyncStore, decisions. Does not know: any rule. A rule of an example has to hold under `contend`, and must not
hold under `contend(…, conditional=False)`: there each task decides over states that all tasks read before any appends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

import eventfold as ef

TASKS = 32
ATTEMPTS = 200  # of one decision: with 32 tasks on one state, each may be refused many times


class Contention(msgspec.Struct, frozen=True):
    """The result of tasks at once: how many were accepted, how many the rule refused, and repeated decisions.

    `unchanged`: decisions that returned no event. `conflicts`: how often a decision was made again.
    """

    tasks: int
    accepted: int
    unchanged: int
    refused: int
    conflicts: int
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        again = f", {self.conflicts:,} decisions were made again" if self.conflicts else ""
        same = f", {self.unchanged:,} changed nothing" if self.unchanged else ""
        return f"{self.tasks} tasks at once: {self.accepted:,} accepted, {self.refused:,} refused{same}{again}"


def contend(
    url: str,
    function: Callable[..., Any],
    arguments: Iterable[tuple[Any, ...]],
    refusal: type[Exception] | tuple[type[Exception], ...],
    *,
    conditional: bool = True,
    tasks: int = TASKS,
) -> Contention:
    """Let `tasks` tasks make one decision each at the same moment, with these arguments, and count what became of them.

    `arguments`: for each decision the arguments of `function`, in which States are folded; more than `tasks` of them
    are shared out. `refusal`: the errors by which the rule refuses. Other errors are raised. `conditional` False: the
    states are read, and the events appended without a condition, as a program without eventfold would do it.
    """
    return asyncio.run(_contend(url, function, list(arguments), refusal, conditional, tasks))


async def _contend(
    url: str,
    function: Callable[..., Any],
    arguments: list[tuple[Any, ...]],
    refusal: type[Exception] | tuple[type[Exception], ...],
    conditional: bool,
    tasks: int,
) -> Contention:
    queue = iter(arguments)
    barrier = asyncio.Barrier(min(tasks, len(arguments)))
    outcomes: list[ef.Decided[Any] | int | Exception] = []
    async with ef.AsyncStore(url, create=False) as store:
        patient = store.using(attempts=ATTEMPTS)

        async def work() -> None:
            first = True
            for given in queue:
                try:
                    if conditional:
                        if first:
                            await barrier.wait()
                        outcomes.append(await patient.decide(function, *given))
                    else:
                        wait = barrier.wait if first else _at_once
                        outcomes.append(await _decide_without_condition(store, function, given, wait))
                except refusal as error:
                    outcomes.append(error)
                first = False

        await asyncio.gather(*[work() for _ in range(barrier.parties)])
    return _counted(barrier.parties, outcomes)


async def _at_once() -> None:
    return None


async def _decide_without_condition(
    store: ef.AsyncStore, function: Callable[..., Any], given: tuple[Any, ...], wait: Callable[[], Awaitable[Any]]
) -> int:
    """Read the states, wait for the other tasks, decide, append. Returns the number of events."""
    folded = [await _folded(store, each) for each in given]
    await wait()
    events: Any = function(*folded)
    listed: list[Any] = list(events) if isinstance(events, list | tuple) else [events]  # pyright: ignore[reportUnknownArgumentType]
    if listed:
        await store.append(*listed)
    return len(listed)


async def _folded(store: ef.AsyncStore, given: Any) -> Any:
    """An argument of a decision with its States folded, also those in lists, tuples and dicts."""
    match given:
        case ef.State():
            return await store.state(given)
        case list():
            return [await _folded(store, each) for each in given]  # pyright: ignore[reportUnknownVariableType]
        case tuple() if type(given) is tuple:  # pyright: ignore[reportUnknownArgumentType] - named tuples stay as they are
            return tuple([await _folded(store, each) for each in given])  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {key: await _folded(store, each) for key, each in given.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return given


def _counted(tasks: int, outcomes: list[ef.Decided[Any] | int | Exception]) -> Contention:
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    written = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    accepted = sum(bool(outcome if isinstance(outcome, int) else outcome.events) for outcome in written)
    return Contention(
        tasks=tasks,
        accepted=accepted,
        unchanged=len(written) - accepted,
        refused=len(refused),
        conflicts=sum(max(0, each.attempts - 1) for each in written if not isinstance(each, int)),
        reasons=tuple(sorted({str(error) for error in refused})),
    )
