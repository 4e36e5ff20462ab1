"""Room: forks of the process, and what SQLite remembers over them.

SQLite keeps in memory which locks its process holds on a file. A forked child inherits that memory, and not one of
the locks, so even a connection that it opens itself would work without them. Hence no file is open in the moment
of a fork: connections are closed before it and opened again when next they are needed. Where that could not be
done in time, the child is told so when it opens the file.
Knows: the system's hooks. Does not know: connections.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

Identity = tuple[int, int]

generation: int = 0  # how many forks lie between the first process and this one
inherited: set[Identity] = set()  # files that SQLite takes for open in this process, and are not


class Forkable(Protocol):
    """Something that has a file open."""

    def pause(self) -> None:
        """Before a fork: let go of the file, and keep others from using it."""
        ...

    def resume(self) -> None:
        """After it, in the parent."""
        ...

    def disown(self) -> Identity | None:
        """After it, in the child, for ever: which file could not be let go of, if it is one."""
        ...


forkable: WeakSet[Forkable] = WeakSet()


def _before() -> None:
    for each in tuple(forkable):
        each.pause()


def _in_parent() -> None:
    for each in tuple(forkable):
        each.resume()


def _in_child() -> None:
    global generation
    generation += 1
    inherited.update(identity for each in tuple(forkable) if (identity := each.disown()) is not None)
    forkable.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
