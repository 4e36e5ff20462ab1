"""Fatigue cracks: the remaining life of a specimen, predicted from its wear as known then, and scored afterwards.

The invariants: a prediction names a cursor of the log and uses nothing behind it; a part that is gone gets none; a part
has one open inspection order. Knows: events, the model, decisions, scores. Does not know: the readings.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import eventfold as ef

FAILS_AT = 160  # hundredths of an inch
REMOVED_AT = 120_000  # cycles, the end of the test: what has not failed by then is censored
Outcome = Literal["found", "missed", "false alarm", "rightly quiet"]


class CrackMeasured(ef.Event):
    """The length of a crack after so many cycles, in hundredths of an inch."""

    specimen: ef.Tag
    cycle: int
    length: int


class MeasurementCorrected(ef.Event):
    """A second inspector measured again. The first reading stays in the log."""

    specimen: ef.Tag
    cycle: int
    length: int
    by: str


class PartFailed(ef.Event):
    """The crack passed 1.60 inch, by linear interpolation between two readings."""

    specimen: ef.Tag
    cycle: float


class PartReplaced(ef.Event):
    """The part was taken out before it failed."""

    specimen: ef.Tag
    cycle: int
    by: str


class PartRemoved(ef.Event):
    """The part did not fail before the test ended, and was taken off the rig."""

    specimen: ef.Tag
    cycle: int


class FailurePredicted(ef.Event):
    """The cycle at which a model expects the failure, from the events up to a cursor only."""

    specimen: ef.Tag
    model: ef.Tag
    as_of: int
    cursor: str
    fails_at: float

    @property
    def is_due(self) -> bool:  # before the test ends
        return self.fails_at < REMOVED_AT


class InspectionOrdered(ef.Event):
    """A person is sent to look, before the predicted failure."""

    specimen: ef.Tag
    before: float
    by: str


class InspectionDone(ef.Event):
    """A person looked; the next order is free."""

    specimen: ef.Tag
    by: str


class PredictionScored(ef.Event):
    """What came of a prediction. `error`: predicted less actual cycles, of parts that failed."""

    specimen: ef.Tag
    model: ef.Tag
    as_of: int
    outcome: Outcome
    error: float | None


class Specimen(ef.State):
    """A part: its readings, corrections included, and what was predicted, ordered and scored."""

    specimen: ef.Tag
    readings: dict[int, int] = {}
    failed: float | None = None
    gone: str | None = None
    predicted: dict[str, FailurePredicted] = {}
    scored: set[str] = set()
    ordered_by: str | None = None

    def evolve(
        self,
        event: CrackMeasured | MeasurementCorrected | PartFailed | PartReplaced | PartRemoved
        | FailurePredicted | InspectionOrdered | InspectionDone | PredictionScored,
    ) -> None:  # fmt: skip
        match event:
            case CrackMeasured() | MeasurementCorrected():
                self.readings[event.cycle] = event.length
            case PartFailed():
                self.failed, self.gone = event.cycle, "failed"
            case PartReplaced():
                self.gone = "was replaced"
            case PartRemoved():
                self.gone = "was taken off the rig"
            case FailurePredicted():
                self.predicted[f"{event.model}@{event.as_of}"] = event
            case InspectionOrdered():
                self.ordered_by = event.by
            case InspectionDone():
                self.ordered_by = None
            case PredictionScored():
                self.scored.add(f"{event.model}@{event.as_of}")


class Refused(Exception):
    """The part is gone, or an order is open."""


class Line(NamedTuple):
    """A model: the reciprocal of the length falls along a line, as Paris' law has it with exponent 4."""

    name: str = "reciprocal"
    readings: int = 4

    def crossing(self, readings: dict[int, int]) -> float:
        """Return the cycle at which the line through the last readings reaches 1.60 inch, by least squares."""
        last = sorted(readings.items())[-self.readings :]
        mean_x = sum(cycle for cycle, _ in last) / len(last)
        mean_y = sum(1 / length for _, length in last) / len(last)
        rise = sum((cycle - mean_x) * (1 / length - mean_y) for cycle, length in last)
        slope = rise / sum((cycle - mean_x) ** 2 for cycle, _ in last)
        return mean_x + (1 / FAILS_AT - mean_y) / slope if slope < 0 else float("inf")


def predict(specimen: Specimen, model: Line, as_of: int, cursor: str, readings: dict[int, int]) -> list[ef.Event]:
    """Predict from readings that were folded at a cursor. A part that is gone gets no prediction; repeats are none."""
    if f"{model.name}@{as_of}" in specimen.predicted:
        return []
    if specimen.gone:
        raise Refused(f"specimen {specimen.specimen} {specimen.gone}")
    return [FailurePredicted(specimen.specimen, model.name, as_of, cursor, model.crossing(readings))]


def order_inspection(specimen: Specimen, by: str) -> list[ef.Event]:
    """Send a person, if a failure is predicted before the end; one order at a time."""
    due = [each.fails_at for each in specimen.predicted.values() if each.is_due]
    if specimen.gone:
        raise Refused(f"specimen {specimen.specimen} {specimen.gone}")
    if specimen.ordered_by is not None:
        raise Refused(f"{specimen.ordered_by} has the order for specimen {specimen.specimen}")
    return [InspectionOrdered(specimen.specimen, min(due), by)] if due else []


def score(specimen: Specimen) -> list[ef.Event]:
    """Score every prediction of a part whose fate is known, once."""
    if specimen.gone is None or specimen.gone == "was replaced":
        return []  # no one will know when a replaced part would have failed
    found: list[ef.Event] = []
    for key, each in specimen.predicted.items():
        if key not in specimen.scored:
            fate: tuple[Outcome, Outcome]  # if nothing was due, and if something was
            fate = ("rightly quiet", "false alarm") if specimen.failed is None else ("missed", "found")
            error = None if specimen.failed is None else each.fails_at - specimen.failed
            found.append(PredictionScored(specimen.specimen, each.model, each.as_of, fate[each.is_due], error))
    return found


class ModelScore(ef.Projection, name="crack_model_score"):
    """How a model did, by the cycle at which it was asked."""

    model: ef.Tag
    as_of: int
    found: int = 0
    missed: int = 0
    false_alarms: int = 0
    quiet: int = 0
    errors: list[float] = []

    def evolve(self, event: PredictionScored) -> None:
        self.found += event.outcome == "found"
        self.missed += event.outcome == "missed"
        self.false_alarms += event.outcome == "false alarm"
        self.quiet += event.outcome == "rightly quiet"
        self.errors = [*self.errors, *([] if event.error is None else [event.error])]
