"""Processes, timers and effects: work that takes days, survives restarts, and reaches outside.

Knows: states that react (classes, plan, wishes), carrying out what they ask for (react), timers (facts, timers),
effects and webhooks, running all of it. Does not know: how a checkpoint is kept (the read side does).
"""

from __future__ import annotations

from eventfold.processes.actions import Cancel, Decision, Timer, after, at, cancel, decide
from eventfold.processes.classes import Process
from eventfold.processes.effects import Effect, effect, webhook

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
    "webhook",
]
