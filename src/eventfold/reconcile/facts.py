"""The results of comparisons as events of the log, `$reconciled`, and the alert that is built in for them.

Knows: events, alerts. Does not know: how something is compared.
"""

from __future__ import annotations

from typing import Literal

from eventfold.alerts.classes import Alert
from eventfold.core.event import Event

TYPE = "$reconciled"
MAX_VERDICT = 1_000  # characters


class Reconciled(Event, type="$reconciled"):
    """Events were compared with a system outside, under the name `subject`.

    `outcome`: "equal", "different", or "failed" if they could not be compared. `head`: the position up to which.
    `events`, `rows`: how many there were on each side; `keys` and `differing`: how many values, and how many of them
    differ. `verdict`: one sentence, which may name keys.
    """

    subject: str
    outcome: Literal["equal", "different", "failed"]
    verdict: str
    head: int = 0
    events: int = 0
    rows: int = 0
    keys: int = 0
    differing: int = 0


class NotReconciled(Alert, name="not_reconciled", severity="ticket"):
    """A comparison with a system outside found differences, or could not be made. Its key is the comparison's name."""

    subject: str
    outcome: str = "equal"
    verdict: str = ""

    def evolve(self, event: Reconciled) -> None:
        """Keep the last result."""
        self.outcome, self.verdict = event.outcome, event.verdict

    def judge(self) -> str | None:
        """Return the sentence of the last comparison, unless both sides agreed."""
        return None if self.outcome == "equal" else self.verdict
