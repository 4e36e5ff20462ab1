# pyright: basic, reportMissingTypeStubs=false
# The library for training has no types.
"""Training: models from a set of rows by scikit-learn, and how good they are.

Knows: scikit-learn, numpy. Does not know: the log, which only app.py and load.py write; files.

`pip install scikit-learn`: it is needed by no other file than this and lives.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score, roc_curve
from threadpoolctl import threadpool_limits

from examples.fields.delays.app import LATE_MINUTES
from examples.fields.delays.export import column_of
from examples.fields.delays.features import Features


def matrix(features: Features, rows: Sequence[int], names: Sequence[str]) -> Any:
    """Features of rows as a matrix; what was unknown is NaN, which the model can take."""
    chosen = numpy.asarray(rows, dtype=numpy.int64)
    return numpy.column_stack([column_of(features, name)[chosen] for name in names])


def late(features: Features, rows: Sequence[int]) -> Any:
    """Whether each of these flights left late."""
    return column_of(features, "delay")[numpy.asarray(rows, dtype=numpy.int64)] >= LATE_MINUTES


def train(features: Features, rows: Sequence[int], names: Sequence[str]) -> HistGradientBoostingClassifier:
    """Train a model on rows. The same rows make the same model."""
    model = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.1, max_leaf_nodes=31, random_state=2013)
    with threadpool_limits(1):
        return model.fit(matrix(features, rows, names), late(features, rows))


def chances(
    model: HistGradientBoostingClassifier, features: Features, rows: Sequence[int], names: Sequence[str]
) -> Any:
    """The chance of each flight to leave late."""
    with threadpool_limits(1):
        return model.predict_proba(matrix(features, rows, names))[:, 1]


def area(features: Features, rows: Sequence[int], predicted: Any) -> float:
    """The area under the ROC curve: the chance that a late flight was given more than one in time; 0.5 is a guess."""
    return round(float(roc_auc_score(late(features, rows), predicted)), 4)


def rows_between(features: Features, rows: Sequence[int], since: datetime, until: datetime) -> list[int]:
    """Those rows whose flight was scheduled to depart from `since` (inclusive) until `until` (exclusive)."""
    return [row for row in rows if since <= features.departs[row] < until]


def curve(features: Features, rows: Sequence[int], predicted: Any) -> list[tuple[float, float]]:
    """The ROC curve in a hundred points: the share of false alarms, and of late flights that are found."""
    false_alarms, found, _ = roc_curve(late(features, rows), predicted)
    places = numpy.linspace(0, 1, 101)
    return list(zip(places.tolist(), numpy.interp(places, false_alarms, found).tolist(), strict=True))
