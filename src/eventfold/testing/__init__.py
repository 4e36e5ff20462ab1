"""What is shipped for tests: a clock to set, faults to plan, AsyncStore made to look synchronous, and the
conformance suite that every engine passes (`eventfold.testing.conformance`); given / when / then, Hypothesis
strategies (`.strategies`) and ready properties (`.properties`) for a user's own rules.

Knows: the stores, the port. Does not know: pytest, except in `conformance`, which is imported by tests alone.
"""

from __future__ import annotations

from eventfold.testing.clock import Clock
from eventfold.testing.faults import Faulty
from eventfold.testing.scenario import given
from eventfold.testing.synchronous import LoopRunner, Synchronous

__all__ = ["Clock", "Faulty", "LoopRunner", "Synchronous", "given"]
