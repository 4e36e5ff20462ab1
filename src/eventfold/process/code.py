"""Room: finding what is to be run by its address, MODULE:NAME: read models, subscriptions, processes, effects.

Knows: what can be run. Does not know: how it is imported (running/code.py does).
"""

from __future__ import annotations

from typing import Any

from eventfold.process.classes import Process
from eventfold.process.effects import Effect
from eventfold.process.runner import Work
from eventfold.running import code


def load(address: str) -> list[Work]:
    """All that can be run at MODULE:NAME: one, or a list; MODULE alone: all it declares. Raises InvalidProjection."""
    return code.load(address, _runs, "a projection, subscription, process or effect")


def _runs(found: Any) -> str | None:
    if isinstance(found, Effect):
        return found.code.partition(":")[0]
    if isinstance(found, type) and issubclass(found, Process) and found is not Process:
        return found.__module__
    return code.kept(found)
