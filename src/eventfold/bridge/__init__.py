"""Room: colour. The only place that knows threads, loops and locks: how a coroutine is run for a sync caller,
offloaded for an async one, and how concurrent appends are combined into one commit.

Knows: the port's promise that a non-suspending engine never waits. Does not know: any engine, any SQL.
"""

from __future__ import annotations

from eventfold.bridge.bell import Bell
from eventfold.bridge.lanes import Lane, Offload, TaskCombiner
from eventfold.bridge.loops import LoopCombiner
from eventfold.bridge.run import run, sleep_here, sleep_on_loop
from eventfold.bridge.threads import ThreadCombiner

__all__ = [
    "Bell",
    "Lane",
    "LoopCombiner",
    "Offload",
    "TaskCombiner",
    "ThreadCombiner",
    "run",
    "sleep_here",
    "sleep_on_loop",
]
