"""Water flow in a branch pipe: which hours are unlike the others, who confirmed it, and what each rule is worth.

The invariant: an anomaly is raised once, whatever the number of evaluators, and judged once, by one person. A baseline
learns only from readings that raised no doubt. Knows: events, rules, decisions. Does not know: what is real.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from statistics import median

from msgspec import field

import eventfold as ef

BRANCH = "branch-1"
LEARNED_HOURS, WARM_HOURS = 168, 48


class FlowReported(ef.Event):
    """The mean flow of an hour, in litres a second. What a sensor reports is recorded, never refused."""

    branch: ef.Tag
    litres: Decimal


class SensorFellSilent(ef.Event, type="FlowSensorFellSilent"):
    """Hours without a reading: silence is no low reading. `until` is the next reading."""

    branch: ef.Tag
    since: datetime
    until: datetime
    hours: int


class AnomalyRaised(ef.Event):
    """A rule found hours that are unlike the others; no one has looked yet."""

    branch: ef.Tag
    anomaly: ef.Tag
    rule: str
    since: datetime
    reason: str


class AnomalyConfirmed(ef.Event):
    """A person found the cause."""

    branch: ef.Tag
    anomaly: ef.Tag
    by: str
    cause: str


class AnomalyDismissed(ef.Event):
    """A person found that nothing was wrong: the rule is to blame."""

    branch: ef.Tag
    anomaly: ef.Tag
    by: str
    because: str


class FlowCorrected(ef.Event):
    """The sensor was wrong in an hour. The reading stays in the log; states use the corrected one."""

    branch: ef.Tag
    at: datetime
    litres: Decimal
    because: str


class Band(ef.Detector):
    """A band around the median of the last week of readings that raised no doubt, so that an anomaly is not learned."""

    accepted: list[float] = []
    doubt: str = ""

    def add(self, litres: float) -> None:
        """Judge a reading; learn from it if it is within the band."""
        self.doubt = ""
        if len(self.accepted) >= WARM_HOURS:
            usual = median(self.accepted)
            if not 0.90 * usual <= litres <= 1.05 * usual:
                self.doubt = f"{litres:.2f} l/s against a median of {usual:.2f}."
                return
        self.accepted = [*self.accepted[1 - LEARNED_HOURS :], litres]

    def fires(self, now: int) -> str | None:
        """Return why the last reading is in doubt."""
        return self.doubt or None


class OutsideBand(ef.Alert, name="flow_outside_band", by="occurred"):
    """Below 90 % or above 105 % of the median of the last 168 accepted hours."""

    branch: ef.Tag
    flow: Band = field(default_factory=Band)

    def evolve(self, event: FlowReported) -> None:
        self.flow.add(float(event.litres))


class FarFromMedian(ef.Alert, name="flow_far_from_median", by="occurred", clear_after=ef.hours(2)):
    """More than ten robust deviations (the default) from the median of a week: `ef.outlier(window=169)`."""

    branch: ef.Tag
    flow: ef.Outlier = ef.outlier(window=169, warm=WARM_HOURS, floor=0.5, hold=ef.hours(1))

    def evolve(self, event: FlowReported) -> None:
        self.flow.add(float(event.litres))


class FartherThanFive(ef.Alert, name="flow_farther_than_five", by="occurred", clear_after=ef.hours(2)):
    """The same with five deviations: a limit chosen after the fact, with the answer in sight."""

    branch: ef.Tag
    flow: ef.Outlier = ef.outlier(window=169, warm=WARM_HOURS, floor=0.5, hold=ef.hours(1), z=5)

    def evolve(self, event: FlowReported) -> None:
        self.flow.add(float(event.litres))


class RareValue(ef.Alert, name="flow_rare_value", by="occurred", clear_after=ef.hours(2)):
    """Rarer than 1 in 1,000 of all values so far: `ef.outlier()`."""

    branch: ef.Tag
    flow: ef.Outlier = ef.outlier(hold=ef.hours(1), warm=64)

    def evolve(self, event: FlowReported) -> None:
        self.flow.add(float(event.litres))


class Drifted(ef.Alert, name="flow_drifted", by="occurred"):
    """The level changed for good: `ef.drift()`."""

    branch: ef.Tag
    flow: ef.Drift = ef.drift(warm=WARM_HOURS)

    def evolve(self, event: FlowReported) -> None:
        self.flow.add(float(event.litres))


class Silent(ef.Alert, name="flow_silent", by="occurred"):
    """No reading for over an hour and a half: `ef.absence()`."""

    branch: ef.Tag
    last: ef.Absence = ef.absence(expect=ef.minutes(90))

    def evolve(self, event: FlowReported) -> None:
        self.last.mark()


RULES: tuple[type[ef.Alert], ...] = (OutsideBand, FarFromMedian, FartherThanFive, RareValue, Drifted)


class Anomalies(ef.State):
    """The anomalies of a branch: which are open, and who judged the others."""

    branch: ef.Tag
    open: dict[str, datetime] = {}
    judged: dict[str, str] = {}

    def evolve(self, event: AnomalyRaised | AnomalyConfirmed | AnomalyDismissed) -> None:
        if isinstance(event, AnomalyRaised):
            self.open[event.anomaly] = event.since
        else:
            self.open.pop(event.anomaly, None)
            self.judged[event.anomaly] = event.by


class AlreadyJudged(Exception):
    """Another person was first."""


def raise_anomaly(anomalies: Anomalies, raised: AnomalyRaised) -> list[ef.Draft]:
    """Raise an anomaly once, whatever the number of evaluators."""
    is_known = raised.anomaly in anomalies.open or raised.anomaly in anomalies.judged
    return [] if is_known else [ef.Draft(raised, occurred=raised.since)]


def judge(anomalies: Anomalies, judgement: AnomalyConfirmed | AnomalyDismissed) -> list[ef.Event]:
    """Confirm or dismiss an open anomaly: it is judged once, by one person."""
    if judgement.anomaly not in anomalies.open:
        raise AlreadyJudged(judgement.anomaly, anomalies.judged.get(judgement.anomaly))
    return [judgement]


class Week(ef.State):
    """The readings of the last 168 hours, corrections included: what an operator sees on the screen."""

    branch: ef.Tag
    readings: dict[datetime, Decimal] = {}

    def evolve(self, event: FlowReported | FlowCorrected, recorded: ef.Recorded) -> None:
        at = event.at if isinstance(event, FlowCorrected) else recorded.occurred
        self.readings[at or recorded.time] = event.litres
        if len(self.readings) > LEARNED_HOURS:
            del self.readings[min(self.readings)]
