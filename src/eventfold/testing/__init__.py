"""Tools for tests: a clock to set, planned faults, a synchronous wrapper of AsyncStore, given / when / then, Hypothesis
strategies (`.strategies`), properties of folds and decisions (`.properties`), and the conformance suite that every
engine passes (`.conformance`).

Knows: the stores, the port. Does not know: pytest, except in `conformance`, which only tests import.
"""

from __future__ import annotations

from eventfold.testing.clock import Clock
from eventfold.testing.faults import Faulty
from eventfold.testing.scenario import given
from eventfold.testing.synchronous import LoopRunner, Synchronous

__all__ = ["Clock", "Faulty", "LoopRunner", "Synchronous", "given"]
