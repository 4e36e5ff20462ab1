"""Tools for tests: a clock to set, planned faults, a synchronous wrapper of AsyncStore, given / when / then, Hypothesis
strategies (`.strategies`), properties of folds and decisions (`.properties`), and the conformance suite that every
engine passes (`.conformance`).

Knows: the stores, the port. Does not know: pytest, except in `conformance`, which only tests import.
"""

from __future__ import annotations

from typing import Any

from eventfold.core.renamed import explain_name
from eventfold.testing.clock import Clock
from eventfold.testing.faults import Faulty
from eventfold.testing.scenario import given
from eventfold.testing.synchronous import LoopRunner, Synchronous

__all__ = ["Clock", "Faulty", "LoopRunner", "Synchronous", "given"]


def __getattr__(name: str) -> Any:
    raise AttributeError(explain_name(f"testing.{name}") or f"module {__name__!r} has no attribute {name!r}")
