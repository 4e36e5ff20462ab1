"""Room: colour. The only place that knows threads, loops and locks: how a coroutine is run for a sync caller,
offloaded for an async one, and how concurrent appends are combined into one commit.

Knows: the port's promise that a non-suspending engine never waits. Does not know: any engine, any SQL.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eventfold.bridge.aside import aside
from eventfold.bridge.bell import Bell
from eventfold.bridge.run import in_thread, run, sleep_here, sleep_on_loop
from eventfold.bridge.threads import ThreadCombiner
from eventfold.mutex import Mutex
from eventfold.waiting import Promise, wait_here, wait_on_loop

if TYPE_CHECKING:
    from eventfold.bridge.lanes import Lane, Offload, TaskCombiner
    from eventfold.bridge.loops import Alone, LoopCombiner
    from eventfold.bridge.once import Once

# What needs a loop is loaded when it is asked for: asyncio is half of what an import costs, and sync users have none.
_WITH_A_LOOP = {
    "Lane": "lanes",
    "Offload": "lanes",
    "TaskCombiner": "lanes",
    "Alone": "loops",
    "LoopCombiner": "loops",
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
    "Mutex",
    "Offload",
    "Once",
    "Promise",
    "TaskCombiner",
    "ThreadCombiner",
    "aside",
    "in_thread",
    "run",
    "sleep_here",
    "sleep_on_loop",
    "wait_here",
    "wait_on_loop",
]
