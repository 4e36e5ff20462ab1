"""`AsyncSelection`: the methods of `Selection`, awaited, each in a worker thread.

Knows: the methods. Does not know: how rows are found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from eventfold.concurrency import in_thread
from eventfold.selection import ComparableColumn, Explanation, Rows, Selection
from eventfold.selection.selection import PAGE, N

M = TypeVar("M")
T = TypeVar("T")


class AsyncSelection(Generic[M]):
    """Rows of a read model, by filters and order: see `Selection`, whose methods these are."""

    def __init__(self, select: Callable[[], Awaitable[Selection[M]]]) -> None:
        self._select = select

    async def rows(self, limit: int | None = None, after: str | None = None) -> Rows[M]:
        """See Selection.rows."""
        return await in_thread((await self._select()).rows, limit, after)

    async def pages(self, size: int = PAGE) -> AsyncIterator[Rows[M]]:
        """See Selection.pages."""
        pages = (await self._select()).pages(size)
        while (page := await in_thread(lambda: next(pages, None))) is not None:
            yield page

    async def first(self) -> M | None:
        """See Selection.first."""
        return await in_thread((await self._select()).first)

    async def exists(self) -> bool:
        """See Selection.exists."""
        return await in_thread((await self._select()).exists)

    async def count(self) -> int:
        """See Selection.count."""
        return await in_thread((await self._select()).count)

    async def count_by(self, column: ComparableColumn[T]) -> dict[T | None, int]:
        """See Selection.count_by."""
        selection = await self._select()
        return await in_thread(lambda: selection.count_by(column))

    async def sum(self, column: ComparableColumn[N]) -> N:
        """See Selection.sum."""
        selection = await self._select()
        return await in_thread(lambda: selection.sum(column))

    async def min(self, column: ComparableColumn[T]) -> T | None:
        """See Selection.min."""
        selection = await self._select()
        return await in_thread(lambda: selection.min(column))

    async def max(self, column: ComparableColumn[T]) -> T | None:
        """See Selection.max."""
        selection = await self._select()
        return await in_thread(lambda: selection.max(column))

    async def explain(self) -> Explanation:
        """See Selection.explain."""
        return await in_thread((await self._select()).explain)
