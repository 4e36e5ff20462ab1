"""The rows that a query found, with the cursor of the next page.

Knows: lists, cursors. Does not know: how rows are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

M = TypeVar("M")


class Rows(list[M]):
    """A list of rows, sorted as asked. `next` continues after the last one."""

    def __init__(self, rows: Iterable[M] = (), following: str | Callable[[], str] | None = None) -> None:
        super().__init__(rows)
        self._following = following

    @property
    def next(self) -> str | None:
        """The cursor of the next page, for `after=`; None if there are no more rows, or if no limit was given."""
        if callable(self._following):
            self._following = self._following()
        return self._following

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self.next)
