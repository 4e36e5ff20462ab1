"""Processes, timers and effects: work that takes days, survives restarts, and has effects outside the log.

Knows: states that react to events (classes, definition, actions), carrying out their actions (reaction), timers
(timer_events, timers), effects and webhooks, running all of these (work, retries, runner, inspection). Does not know:
how checkpoints are stored (`projections` does).
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
