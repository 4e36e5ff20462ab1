"""Threads and event loops: running a coroutine for a caller that blocks, running a blocking call for a caller that
awaits, and combining concurrent appends into one commit.

Knows: the port's promise that an engine with `suspends=False` never suspends. Does not know: any engine, any SQL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.concurrency.group_commit import ThreadGroupCommit
from eventfold.concurrency.run import ThreadRuntime, in_thread, run, start_in_thread
from eventfold.concurrency.waiting import Promise
from eventfold.concurrency.wakeup import CommitSignal
from eventfold.core.mutex import Mutex

if TYPE_CHECKING:
    from eventfold.concurrency.loop import AsyncOnce, DirectCommit, LoopGroupCommit, LoopRuntime
    from eventfold.concurrency.offload import Offload, OffloadedGroupCommit, WorkerThreads

# Loaded at the first use: asyncio takes half of the time of an import, and sync users do not need it.
_LAZY = {
    "AsyncOnce": "loop",
    "DirectCommit": "loop",
    "LoopGroupCommit": "loop",
    "LoopRuntime": "loop",
    "Offload": "offload",
    "OffloadedGroupCommit": "offload",
    "WorkerThreads": "offload",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


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
