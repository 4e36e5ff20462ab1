"""The only package that knows threads, loops and locks: how a coroutine is run for a sync caller,
offloaded for an async one, and how concurrent appends are combined into one commit.

Knows: the port's promise that a non-suspending engine never waits. Does not know: any engine, any SQL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.concurrency.aside import start_in_thread
from eventfold.concurrency.group_commit import ThreadGroupCommit
from eventfold.concurrency.run import in_thread, run
from eventfold.concurrency.runtime import LoopRuntime, ThreadRuntime
from eventfold.concurrency.waiting import Promise
from eventfold.concurrency.wakeup import CommitSignal
from eventfold.core.mutex import Mutex

if TYPE_CHECKING:
    from eventfold.concurrency.loop import DirectCommit, LoopGroupCommit
    from eventfold.concurrency.offload import Offload, OffloadedGroupCommit, WorkerThreads
    from eventfold.concurrency.once import AsyncOnce

# What needs a loop is loaded when it is asked for: asyncio is half of what an import costs, and sync users have none.
_WITH_A_LOOP = {
    "WorkerThreads": "offload",
    "Offload": "offload",
    "OffloadedGroupCommit": "offload",
    "DirectCommit": "loop",
    "LoopGroupCommit": "loop",
    "AsyncOnce": "once",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_A_LOOP:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_A_LOOP[name]}"), name)


__all__ = [
    "AsyncOnce",
    "CommitSignal",
    "DirectCommit",
    "LoopGroupCommit",
    "LoopRuntime",
    "Mutex",
    "Offload",
    "OffloadedGroupCommit",
    "Promise",
    "ThreadGroupCommit",
    "ThreadRuntime",
    "WorkerThreads",
    "in_thread",
    "run",
    "start_in_thread",
]
