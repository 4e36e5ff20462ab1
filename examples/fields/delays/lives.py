"""The lives of two models: trained on what was known, promoted, used for predictions, scored, retired.

Knows: the steps of a model. Does not know: how models are trained (training.py), what is printed (check.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import eventfold as ef
from eventfold.demo.fields import id_from
from examples.fields.delays import training
from examples.fields.delays.app import (
    Flight,
    Model,
    ModelTrained,
    Refused,
    predict,
    predict_all,
    promote,
    score,
)
from examples.fields.delays.features import ASSUMED, KNOWN, LEAKY, Features

GROUP = 100  # flights that one decision predicts for
FIRST, SECOND = "delays-1", "delays-2"
TRAINED_UNTIL = {FIRST: 3 / 4, SECOND: 5 / 6}  # of the flights, by time of departure
PREDICTED = 1 / 48  # of the flights: those after a model was trained; of a year, a week
HELD_OUT = 1 / 10  # of the rows known, the last ones: how good a model is, as known when it was trained


def run_model(store: ef.Store, features: Features, rows: Sequence[int], name: str) -> ModelTrained:
    """Train a model on the rows known at its time, promote it, predict the next flights, score them once they left."""
    begin = int(len(rows) * TRAINED_UNTIL[name])
    cursor = store.cursor(features.positions[rows[begin]])
    known = features.known_at(cursor.position)
    cut = int(len(known) * (1 - HELD_OUT))
    model = training.train(features, known[:cut], KNOWN)
    quality = training.area(features, known[cut:], training.chances(model, features, known[cut:], KNOWN))
    trained = ModelTrained(name, str(cursor), cut, features.digest(known[:cut]), KNOWN, quality)
    store.append(ef.Draft(trained, id=id_from(features.departs[rows[begin]], name, "trained")))
    if store.state(Model(name)).retired:
        return trained  # an earlier run has done the rest
    store.decide(promote, Model(name), Model(FIRST) if name != FIRST else None, by="the person on duty")
    wanted = rows[begin : begin + max(1, int(len(rows) * PREDICTED))]
    chances = [round(float(chance), 4) for chance in training.chances(model, features, wanted, KNOWN)]
    for first in range(0, len(wanted), GROUP):
        group = slice(first, first + GROUP)
        flights = [Flight(features.flights[row]) for row in wanted[group]]
        cursors = [store.cursor(features.positions[row]) for row in wanted[group]]
        store.decide(predict_all, Model(name), flights, cursors, chances[group])
        store.decide(score, flights, name)
    return trained


def compare_columns(features: Features, rows: Sequence[int]) -> tuple[dict[str, float], dict[str, Any]]:
    """Train on three sets of columns, each on the same early rows, and measure each on the same later ones."""
    begin = int(len(rows) * TRAINED_UNTIL[FIRST])
    early, later = features.known_at(features.positions[rows[begin]]), rows[begin:]
    areas: dict[str, float] = {}
    curves: dict[str, Any] = {}
    for name, columns in (("as known", KNOWN), ("and the aircraft", ASSUMED), ("with leaks", LEAKY)):
        chances = training.chances(training.train(features, early, columns), features, later, columns)
        areas[name] = training.area(features, later, chances)
        curves[name] = training.curve(features, later, chances)
    return areas, curves


def refusal(store: ef.Store, features: Features, rows: Sequence[int]) -> str:
    """What a retired model answers."""
    row = rows[-1]
    cursor = store.cursor(features.positions[row])
    try:
        store.decide(predict, Model(FIRST), Flight(features.flights[row]), cursor, 0.5)
    except Refused as refused:
        return f"Refused: {refused}."
    return "It predicted: the rule does not hold."
