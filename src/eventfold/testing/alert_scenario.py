"""Given / when / then for alerts: which episodes a rule has after some events, and at a later moment without events.

    given(OrderPlaced("o-1")).alert(NoOrders).silent().later(hours=2).raises("Nothing for 60 minutes")

Knows: the replay of a rule. Does not know: runners, facts in the log, any test runner; it raises AssertionError.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from eventfold.core.envelope import from_micros
from eventfold.store import Store
from eventfold.testing.clock import Clock

if TYPE_CHECKING:
    from eventfold.alerts.classes import Alert
    from eventfold.alerts.facts import Episode


class AlertScenario:
    """A rule over a log of given events. Check it with `raises` and `silent`; move on with `at`, `later` and `given`.

    The rule has watched since `begin`, in µs since 1970 UTC: an alert without a key waits for events from then on.
    """

    def __init__(self, store: Store, clock: Clock, rule: type[Alert], begin: int) -> None:
        self._store, self._rule, self._begin = store, rule, begin
        self.clock = clock

    def given(self, *events: Any) -> AlertScenario:
        """Record more events, at the time of the clock."""
        self._store.extend(events)
        return self

    def at(self, moment: datetime | Clock) -> AlertScenario:
        """Move to a moment: an aware datetime, or the time of a clock. No event comes until then."""
        self.clock.set(moment.now if isinstance(moment, Clock) else moment)
        return self

    def later(self, **time: float) -> AlertScenario:
        """Move on by a time, with the arguments of timedelta: `later(hours=2)`."""
        self.clock.set(self.clock.now + timedelta(**time))
        return self

    @property
    def episodes(self) -> list[Episode]:
        """The episodes so far, in the order in which they began."""
        from eventfold.alerts.replay import Replay
        from eventfold.concurrency import run

        replay = Replay(self._store.alerts.log, self._rule, until=self.clock(), began=self._begin)
        return run(replay.run())

    def raises(self, reason: str = "", *, key: str | None = None) -> AlertScenario:
        """Assert that an episode is open now: of this key's text if it is given, with `reason` in its reason."""
        is_open = [each for each in self.episodes if each.is_open]
        fitting = [each for each in is_open if (key is None or each.key == key) and reason in each.reason]
        if not fitting:
            wanted = f"{self._rule.__name__}{f' of {key!r}' if key is not None else ''} to be raised"
            because = f" with {reason!r} in its reason" if reason else ""
            raise AssertionError(f"expected {wanted}{because} at {self._now()}, found {_described(is_open)}")
        return self

    def silent(self, *, key: str | None = None) -> AlertScenario:
        """Assert that no episode is open now: of this key's text, or of any."""
        is_open = [each for each in self.episodes if each.is_open and (key is None or each.key == key)]
        if is_open:
            raise AssertionError(
                f"expected {self._rule.__name__} to be silent at {self._now()}, found {_described(is_open)}"
            )
        return self

    def _now(self) -> str:
        return f"{self.clock.now:%Y-%m-%d %H:%M:%S}Z"


def _described(episodes: list[Episode]) -> str:
    if not episodes:
        return "no open episode"
    lines = [f"  {each.key or 'raised'}: {each.reason} (since {from_micros(each.at):%H:%M:%S}Z)" for each in episodes]
    return "\n".join(["open:", *lines[:10], *(["  …"] if len(lines) > 10 else [])])
