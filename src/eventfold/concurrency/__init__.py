"""Room: colour. The only place that knows threads, loops and locks: how a coroutine is run for a sync caller,
offloaded for an async one, and how concurrent appends are combined into one commit.

Knows: the port's promise that a non-suspending engine never waits. Does not know: any engine, any SQL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.concurrency.aside import aside
from eventfold.concurrency.group_commit import ThreadCombiner
from eventfold.concurrency.run import in_thread, run
from eventfold.concurrency.runtime import LoopRuntime, ThreadRuntime
from eventfold.concurrency.waiting import Promise
from eventfold.concurrency.wakeup import Bell
from eventfold.core.mutex import Mutex

if TYPE_CHECKING:
    from eventfold.concurrency.loop import Alone, LoopCombiner
    from eventfold.concurrency.offload import Lane, Offload, TaskCombiner
    from eventfold.concurrency.once import Once

# What needs a loop is loaded when it is asked for: asyncio is half of what an import costs, and sync users have none.
_WITH_A_LOOP = {
    "Lane": "offload",
    "Offload": "offload",
    "TaskCombiner": "offload",
    "Alone": "loop",
    "LoopCombiner": "loop",
    "Once": "once",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_A_LOOP:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_A_LOOP[name]}"), name)


__all__ = [
    "Alone",
    "Bell",
    "Lane",
    "LoopCombiner",
    "LoopRuntime",
    "Mutex",
    "Offload",
    "Once",
    "Promise",
    "TaskCombiner",
    "ThreadCombiner",
    "ThreadRuntime",
    "aside",
    "in_thread",
    "run",
]
