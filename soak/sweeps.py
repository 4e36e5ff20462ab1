"""Exceptions at one instruction after another of a call, as a signal handler raises them; the tests run a sample.

Knows: which calls, and how many instructions are left out. Does not know: how it is done, and what must hold.
"""

from __future__ import annotations

from typing import Any

from soak.clients import Place
from soak.rounds import Round
from tests.interrupts.sweep import Sweep

CALLS = ("decide_warm", "decide_cold", "append", "follow", "follow_on", "read", "lock")
ERRORS = (KeyboardInterrupt, TimeoutError)


def sqlite(turn: Round) -> None:
    """Sweep one call, chosen by the round's number, with two kinds of errors."""
    _sweep(turn, Place(str(turn.folder / "store.db"), turn.folder, ""), 19)


def postgres(turn: Round) -> None:
    """Sweep a call on PostgreSQL."""
    _sweep(turn, Place(turn.schema(), turn.folder, ""), 67)


def _sweep(turn: Round, place: Place, every: int) -> None:
    name, error = CALLS[turn.index % len(CALLS)], ERRORS[turn.index // len(CALLS) % 2]
    store = place.open()  # not closed: closing may hang where a call does not survive an exception
    sweep = Sweep(store)
    call: Any = getattr(sweep, name)
    points = sweep.sweep(call, every, error)
    turn.count("calls swept")
    turn.count("instructions", points)
