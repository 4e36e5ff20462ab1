"""The quality of the voltage: two rules over the same readings, one of which was replaced by the other.

EN 50160 judges the 10-minute means of each week: 95 % of them within 230 V plus and minus 10 %, and all of them within
plus 10 and minus 15 %. The rule before it judged every minute. A mean here is that of the minutes' means, since the
meter has no root mean square of ten minutes. Knows: readings of app.py. Does not know: bills, the source.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import eventfold as ef
from examples.fields.meters.app import ReadingsTaken

HIGHEST, LOWEST, FAR_BELOW = 25_300, 20_700, 19_550  # hundredths of a volt: 230 V plus 10, minus 10, minus 15 %
EVERY_MINUTE, STANDARD = "every minute", "EN 50160"


class VoltageRuleAdopted(ef.Event):
    """A rule holds from now on for the weeks of a meter."""

    meter: ef.Tag
    rule: str
    by: str


class VoltageLimitExceeded(ef.Event):
    """A week did not keep the rule that held at its end; what was found under an older rule stays."""

    meter: ef.Tag
    week: ef.Tag
    rule: str
    reason: str


class WeekOfVoltage(ef.Projection, name="meter_week"):
    """A week, named by its Monday: 10-minute means, and single minutes, outside the limits."""

    meter: ef.Tag
    week: datetime
    means: int = 0
    means_outside: int = 0  # 230 V plus and minus 10 %
    means_beyond: int = 0  # 230 V plus 10 and minus 15 %
    minutes_outside: int = 0
    highest: float = 0.0  # of the means, in hundredths of a volt

    @staticmethod
    def key(event: ReadingsTaken) -> tuple[str, datetime]:
        """The meter and the Monday of an hour."""
        return event.meter, event.hour.replace(hour=0) - timedelta(days=event.hour.weekday())

    def evolve(self, event: ReadingsTaken) -> None:
        """Add six means."""
        for start in range(0, 60, 10):
            found = [volts for volts in event.centivolts[start : start + 10] if volts is not None]
            if found:
                mean = sum(found) / len(found)
                self.means += 1
                self.means_outside += not LOWEST <= mean <= HIGHEST
                self.means_beyond += not FAR_BELOW <= mean <= HIGHEST
                self.minutes_outside += sum(not LOWEST <= volts <= HIGHEST for volts in found)
                self.highest = max(self.highest, mean)

    def breaks(self, rule: str) -> str | None:
        """Return why the week does not keep a rule, or None."""
        if rule == EVERY_MINUTE:
            return f"{self.minutes_outside} minutes outside 207 to 253 V" if self.minutes_outside else None
        if self.means_outside > 0.05 * self.means:
            return f"{self.means_outside} of {self.means} means outside 207 to 253 V, more than 5 %"
        if self.means_beyond:
            highest = f"the highest {self.highest / 100:.2f} V"
            return f"{self.means_beyond} of {self.means} means outside 195.5 to 253 V, {highest}"
        return None


class Verdicts(ef.State):
    """The rules of a meter, each from its moment on, and the weeks that broke them."""

    meter: ef.Tag
    rules: list[tuple[datetime, str]] = []
    exceeded: set[str] = set()

    def evolve(self, event: VoltageRuleAdopted | VoltageLimitExceeded, recorded: ef.Recorded) -> None:
        """Keep a rule or a verdict."""
        if isinstance(event, VoltageRuleAdopted):
            self.rules.append((recorded.occurred or recorded.time, event.rule))
        else:
            self.exceeded.add(event.week)


def judge_week(verdicts: Verdicts, week: WeekOfVoltage) -> list[ef.Draft[VoltageLimitExceeded]]:
    """Judge a week by the rule that held at its end, once."""
    end, name = week.week + timedelta(days=7), f"{week.week:%Y-%m-%d}"
    rule = next((rule for since, rule in reversed(verdicts.rules) if since < end), None)
    reason = None if rule is None or name in verdicts.exceeded else week.breaks(rule)
    if rule is None or reason is None:
        return []
    return [ef.Draft(VoltageLimitExceeded(week.meter, name, rule, reason), occurred=end)]
