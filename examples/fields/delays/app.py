"""Predicted delays: a model is trained on what was known, predicts from what is known, and is scored afterwards.

Knows: events, states, decisions, read models. Does not know: how features are computed (features.py), any library of
machine learning (training.py).

A prediction names a cursor, the position in the log up to which it knew events. It has to lie before the departure of
its flight. Only a promoted model predicts, at most once for a flight; a retired one predicts nothing more.
"""

from __future__ import annotations

from datetime import datetime

import eventfold as ef
from eventfold.demo.flights.events import FlightCancelled, FlightDeparted, FlightScheduled

LATE_MINUTES = 15  # from which on a departure is late, as the airlines count


class WeatherObserved(ef.Event):
    """The weather at an airport in the hour before `at`. Degrees Fahrenheit, miles an hour, inches, miles."""

    origin: ef.Tag
    at: datetime
    temperature: float | None
    wind: float | None
    rain: float
    visibility: float


class ModelTrained(ef.Event):
    """A model, and all that is needed to train it again: the cursor of its data, and their digest.

    `rows` were exported from the events up to `cursor`; `quality` is the area under the curve in later months.
    """

    model: ef.Tag
    cursor: str
    rows: int
    digest: str
    features: tuple[str, ...]
    quality: float


class ModelPromoted(ef.Event):
    model: ef.Tag
    by: str


class ModelRetired(ef.Event):
    model: ef.Tag
    why: str


class DelayPredicted(ef.Event):
    """The chance that a flight leaves late, from the events up to `cursor`, at `position`, and no later ones."""

    model: ef.Tag
    flight: ef.Tag
    cursor: str
    position: int
    chance: float


class PredictionScored(ef.Event):
    """What became of a predicted flight; `error` is the square of the difference between chance and outcome."""

    model: ef.Tag
    flight: ef.Tag
    late: bool
    chance: float
    error: float


class Refused(Exception):
    """The rule refuses a prediction, a promotion or a retirement."""


class Model(ef.State):
    """The life of a model."""

    model: ef.Tag
    trained: bool = False
    promoted: bool = False
    retired: bool = False

    def evolve(self, event: ModelTrained | ModelPromoted | ModelRetired) -> None:
        match event:
            case ModelTrained():
                self.trained = True
            case ModelPromoted():
                self.promoted = True
            case ModelRetired():
                self.retired = True


class Flight(ef.State):
    """A flight: where in the log it was announced and left, and what was predicted for it."""

    flight: ef.Tag
    announced: int = 0
    left: int = 0
    delay: int | None = None
    predicted: dict[str, float] = {}
    scored: set[str] = set()

    def evolve(
        self,
        event: FlightScheduled | FlightDeparted | FlightCancelled | DelayPredicted | PredictionScored,
        recorded: ef.Recorded,
    ) -> None:
        match event:
            case FlightScheduled():
                self.announced = recorded.position
            case FlightDeparted():
                self.left, self.delay = recorded.position, event.delay
            case FlightCancelled():
                self.left = recorded.position
            case DelayPredicted():
                self.predicted[event.model] = event.chance
            case PredictionScored():
                self.scored.add(event.model)


def predict(model: Model, flight: Flight, cursor: ef.Cursor, chance: float) -> list[DelayPredicted]:
    """Predict, once for a flight, from events before its departure."""
    if not model.promoted or model.retired:
        raise Refused(f"{model.model} is {'retired' if model.retired else 'not promoted'}")
    if not flight.announced or cursor.position < flight.announced:
        raise Refused(f"{flight.flight} was not announced at position {cursor.position}")
    if flight.left and cursor.position >= flight.left:
        raise Refused(f"{flight.flight} had left at position {cursor.position}: that is no prediction")
    if model.model in flight.predicted:
        return []
    return [DelayPredicted(model.model, flight.flight, str(cursor), cursor.position, chance)]


def predict_all(
    model: Model, flights: list[Flight], cursors: list[ef.Cursor], chances: list[float]
) -> list[DelayPredicted]:
    """Predict for flights that leave about the same time, in one decision."""
    drafts = (predict(model, *each) for each in zip(flights, cursors, chances, strict=True))
    return [event for events in drafts for event in events]


def score(flights: list[Flight], model: str) -> list[PredictionScored]:
    """Score predictions, once each, of flights that have left; a cancelled flight was neither late nor in time."""
    return [
        PredictionScored(model, each.flight, late, chance, round((chance - late) ** 2, 6))
        for each in flights
        if (chance := each.predicted.get(model)) is not None and model not in each.scored and each.delay is not None
        for late in (each.delay >= LATE_MINUTES,)
    ]


def promote(new: Model, old: Model | None, by: str) -> list[ModelPromoted | ModelRetired]:
    """Let a model predict, and retire the one before it, in one step: there is never a time with two."""
    if not new.trained or new.retired:
        raise Refused(f"{new.model} is {'retired' if new.retired else 'not trained'}")
    retired = [ModelRetired(old.model, f"replaced by {new.model}")] if old and not old.retired else []
    return [*retired, *([] if new.promoted else [ModelPromoted(new.model, by)])]


def retire(model: Model, why: str) -> list[ModelRetired]:
    """End a model: it predicts nothing more."""
    return [] if model.retired else [ModelRetired(model.model, why)]


class Calibration(ef.Projection, name="delays_calibration"):
    """Scored predictions of a model by tenth: predicted chances, and how many left late."""

    model: str
    tenth: int
    flights: int = 0
    late: int = 0
    chances: float = 0.0
    errors: float = 0.0

    @staticmethod
    def key(event: PredictionScored) -> tuple[str, int]:
        """The tenth of the predicted chance: 0 is below 10 %."""
        return event.model, min(9, int(event.chance * 10))

    def evolve(self, event: PredictionScored) -> None:
        self.flights += 1
        self.late += event.late
        self.chances += event.chance
        self.errors += event.error
