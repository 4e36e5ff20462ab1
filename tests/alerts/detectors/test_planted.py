"""Planted faults: each detector finds most of them, reports little besides, and the table in the docs says how much."""

from __future__ import annotations

import pytest

from tests.alerts.detectors import planted

# The least precision and recall of each series, below what was measured when it was written.
LEAST = {
    "ef.rate": (0.9, 1.0),
    "ef.absence": (0.95, 0.95),
    "ef.seasonal": (0.9, 0.9),
    "ef.outlier(window=201)": (0.99, 0.99),
    "ef.outlier(rarer_than=1/1000)": (0.25, 0.95),  # 1 in 1,000 ordinary values fires on each side, by definition
    "ef.drift": (0.95, 0.9),
}
# With few events in an hour an empty one is no fault that anything could find.
FEW = {"the same, 50 at the peak": (0.9, 0.8), "the same, 10 at the peak": (0.6, 0.2)}


@pytest.mark.parametrize("score", planted.scores(), ids=lambda score: score.watched)
def test_precision_and_recall_are_at_least(score: planted.Score) -> None:
    """Of the reports, and of the faults, at least these shares."""
    precision, recall = FEW.get(score.watched) or next(
        least for name, least in LEAST.items() if score.detector.startswith(name)
    )
    assert score.precision >= precision
    assert score.recall >= recall


def test_the_table_in_the_docs_is_what_the_code_finds_today() -> None:
    """docs/reference/detectors.md is written by `python -m tests.alerts.detectors.planted`."""
    text = planted.PAGE.read_text("utf-8")
    assert planted.page(text) == text
