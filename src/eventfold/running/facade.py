"""Room: what a store may be asked about its read models, in either colour; both façades take it from here.

A projection always runs in threads, with a log that blocks: folding is work, and no work for an event loop. The async
twins hand the same calls to a thread. Knows: what a user may ask. Does not know: how any of it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar, cast

from eventfold.concurrency import in_thread, run
from eventfold.errors import InvalidProjection
from eventfold.flow.prove import Progress
from eventfold.flow.view import View, view
from eventfold.log.context import Options
from eventfold.projection.classes import Projection
from eventfold.projection.plan import Kept
from eventfold.running.awaited import AsyncDesk
from eventfold.running.desk import PATIENCE, Desk
from eventfold.running.finding import Named

P = TypeVar("P", bound=Projection)


def sort_fields(order: Any) -> tuple[str, ...]:
    """The fields to sort rows by, each with "-" before it for the greatest first. Raises InvalidProjection."""
    given: list[Any] = [order]
    if not isinstance(order, str) and isinstance(order, Iterable):
        given = list(cast("Iterable[Any]", order))
    for each in given:
        if not isinstance(each, str):
            raise InvalidProjection(
                f"Rows cannot be sorted by {each!r}.",
                'Give names of fields: order="-total". Rows whose field order has this value: rows(…, {"order": …}).',
            )
    return tuple(given)


class Projecting:
    """The part of `Store` that is about read models."""

    _desk: Desk
    _options: Options

    def project(self, *projections: Kept, timeout: float = PATIENCE, progress: Progress | None = None) -> None:
        """Bring read models up to the head of the log, here and now; made known and their tables ready if they are not.

        Where a runner elsewhere holds one, it is waited for, `timeout` seconds. `progress(position, head)` is called
        after every page, for one read model after the other. Raises InvalidProjection,
        ProjectionChanged (its code is another now), ProjectionStopped (a handler failed), ProjectionBehind,
        TargetUnavailable.
        """
        self._desk.project(*projections, timeout=timeout, progress=progress)

    def wait(self, projection: Named, position: int | None = None, timeout: float = PATIENCE) -> int:
        """Wait until a read model has taken everything up to a position (by default the head); returns where it is.

        Whoever runs it, in whatever process. Raises ProjectionBehind after `timeout` seconds, with the reason.
        """
        return self._desk.wait(projection, position, timeout)

    def rows(
        self,
        projection: type[P],
        where: Mapping[str, Any] | None = None,
        /,
        *,
        order: str | Sequence[str] = (),
        limit: int | None = None,
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> list[P]:
        """The rows whose fields equal these, by key or in this `order` (`"-delay"`: the greatest first).

        None is the least value, on every target. `where` the same as a dict, for fields that are called as an
        argument is: `rows(Lines, {"order": "o-1"})`.
        `wait` a position it must have come to first (a receipt's `last`: read your own writes); `generation` another
        than the one that is live.
        """
        if wait is not None:
            self._desk.wait(projection, wait)
        by = sort_fields(order)
        return self._desk.rows(projection, fields | dict(where or {}), by, limit, generation)

    def view(
        self,
        projection: type[P],
        *,
        at: int | date | None = None,
        occurred_until: date | None = None,
        since: View[P] | None = None,
    ) -> View[P]:
        """Its rows, folded in memory from the log: no table, always current, or as of `at` (a position or a moment).

        `occurred_until` leaves out what occurred later; inclusive, see Store.state. `since` an earlier view to go on
        from, which must not be used any more; not with `occurred_until`.
        """
        return run(view(self._desk.log, projection, at, since, occurred_until))

    @property
    def projections(self) -> Desk:
        """What can be asked about projections and done to them: status, rebuild, compare, switch, parked, verify, …"""
        return self._desk.using(self._options)


class AsyncProjecting:
    """The part of `AsyncStore` that is about read models. See Projecting."""

    _options: Options

    async def _desk(self) -> Desk:
        raise NotImplementedError

    async def project(self, *projections: Kept, timeout: float = PATIENCE, progress: Progress | None = None) -> None:
        """See Store.project."""
        desk = await self._desk()
        await in_thread(lambda: desk.project(*projections, timeout=timeout, progress=progress))

    async def wait(self, projection: Named, position: int | None = None, timeout: float = PATIENCE) -> int:
        """See Store.wait."""
        return await in_thread((await self._desk()).wait, projection, position, timeout)

    async def rows(
        self,
        projection: type[P],
        where: Mapping[str, Any] | None = None,
        /,
        *,
        order: str | Sequence[str] = (),
        limit: int | None = None,
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> list[P]:
        """See Store.rows."""
        desk = await self._desk()
        if wait is not None:
            await in_thread(desk.wait, projection, wait)
        by = sort_fields(order)
        return await in_thread(desk.rows, projection, fields | dict(where or {}), by, limit, generation)

    async def view(
        self,
        projection: type[P],
        *,
        at: int | date | None = None,
        occurred_until: date | None = None,
        since: View[P] | None = None,
    ) -> View[P]:
        """See Store.view."""
        desk = await self._desk()
        return await in_thread(lambda: run(view(desk.log, projection, at, since, occurred_until)))

    @property
    def projections(self) -> AsyncDesk:
        """See Store.projections."""

        async def desk() -> Desk:
            return (await self._desk()).using(self._options)

        return AsyncDesk(desk)
