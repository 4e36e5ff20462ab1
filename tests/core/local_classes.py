"""Checks that a function's own classes must pass, with annotations as they are and as text.

Knows: nothing but checks. The two test files differ in `from __future__ import annotations` alone.
"""

from __future__ import annotations

from typing import Any

import eventfold as ef
from eventfold.core.state import state_definition_of


def use(state: type[Any], event: Any) -> Any:
    """Append an event and fold the state over it."""
    state_definition_of(state)
    with ef.Store("memory:") as store:
        store.append(event)
        assert [recorded.event for recorded in store.read()] == [event]
        return store.state(state("a-1"))
