"""Room: processes, timers and effects: work that takes days, survives restarts, and reaches outside.

Knows: states that react (classes, plan, wishes), carrying out what they ask for (react), timers (facts, timers),
effects and webhooks, running all of it. Does not know: how a checkpoint is kept (the read side does).
"""

from __future__ import annotations

from eventfold.process.classes import Process
from eventfold.process.effects import Effect, effect
from eventfold.process.wishes import Cancel, Decision, Timer, after, at, cancel, decide

__all__ = [
    "Cancel",
    "Decision",
    "Effect",
    "Process",
    "Timer",
    "after",
    "at",
    "cancel",
    "decide",
    "effect",
]
