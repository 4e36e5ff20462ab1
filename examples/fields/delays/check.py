"""Asks DuckDB for the same features, runs the lives of two models, and shows what leaks pretend.

    python -m examples.fields.delays.check [--store URL] [--limit N]

Knows: the steps. Does not know: how features are folded (features.py) or asked in SQL (source_features.py), models.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.fields import Checked, Comparison, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import table
from examples.fields.delays.app import Calibration, DelayPredicted, ModelRetired, ModelTrained
from examples.fields.delays.export import export
from examples.fields.delays.features import Features, compute
from examples.fields.delays.load import load
from examples.fields.delays.source_features import compare_features


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Run the life of two models, compare features with the source, and print what was found."""
    result, features = Checked(), compute(store)
    rows = features.known_at(store.head())
    with tempfile.TemporaryDirectory(prefix="eventfold-delays-") as folder:
        file = Path(folder) / "features.parquet"
        export(features, range(len(features)), str(store.cursor()), file)
        late_in_source = compare_features(file, limit, result.comparison)
    # Here, since scikit-learn takes 90 MB: DuckDB has returned its memory by now.
    from examples.fields.delays.lives import FIRST, SECOND, compare_columns, refusal, run_model

    lives = [run_model(store, features, rows, name) for name in (FIRST, SECOND)]
    store.project(Calibration)
    tenths = list(store.rows(Calibration, order=("model", "tenth")))
    late = late_in_source.intersection(each.flight for each in predictions(store))
    result.comparison.figure("late flights among the predicted", sum(each.late for each in tenths), len(late))
    find_breaches(store, features, result.comparison)
    areas, curves = compare_columns(features, rows)
    result.figures = {"rows": len(features), "areas": areas, "models": {each.model: each.quality for each in lives}}
    result.add("Two models, each trained on what was known", model_lines(lives))
    result.add("Predicted and seen, by tenth of the predicted chance", calibration_lines(tenths))
    result.add("What leaks pretend: area under the curve, later flights", area_lines(areas))
    result.add("What did we predict, and what did we know?", story_lines(store, features))
    result.add("A retired model predicts nothing", [refusal(store, features, rows)])
    result.plot = plot(curves)
    return result


def predictions(store: ef.Store) -> list[DelayPredicted]:
    """All predictions in the log, in order."""
    return [recorded.event for recorded in store.read(ef.Query.of(types=[DelayPredicted]))]


def find_breaches(store: ef.Store, features: Features, comparison: Comparison) -> None:
    """Every prediction in the log that knew its flight's departure, or was made after its model was retired."""
    left = dict(zip(features.flights, features.left, strict=True))
    retired = {each.event.model: each.position for each in store.read(ef.Query.of(types=[ModelRetired]))}
    for recorded in store.read(ef.Query.of(types=[DelayPredicted])):
        event: DelayPredicted = recorded.event
        comparison.compared += 1
        if 0 < left.get(event.flight, 0) <= event.position:
            comparison.finding(f"{event.flight} had left when {event.model} predicted", event.position)
        if recorded.position > retired.get(event.model, recorded.position):
            comparison.finding(f"{event.model} was retired when it predicted {event.flight}", recorded.position)


def model_lines(lives: Sequence[ModelTrained]) -> list[str]:
    """Each model: how many rows, up to which cursor, their digest."""
    head = ("model", "rows", "area", "cursor of its data", "digest of its data")
    return table(head, [(m.model, m.rows, m.quality, m.cursor[:20] + "…", m.digest[:12]) for m in lives])


def calibration_lines(tenths: Sequence[Calibration]) -> list[str]:
    """Predicted and seen shares."""
    rows = [
        (
            each.model,
            f"{each.tenth * 10} %",
            each.flights,
            100 * each.chances / each.flights,
            100 * each.late / each.flights,
        )
        for each in tenths
    ]
    return table(("model", "from", "flights", "predicted %", "late %"), rows)


def area_lines(areas: dict[str, float]) -> list[str]:
    """The areas, and which of them is honest."""
    words = {
        "as known": "what the log had two hours before departure",
        "and the aircraft": "if the aircraft was known by then; the source does not say",
        "with leaks": "the airport when it left, the carrier's whole day: not known then",
    }
    return table(("columns", "area", ""), [(name, f"{area:.3f}", words[name]) for name, area in areas.items()])


def story_lines(store: ef.Store, features: Features) -> list[str]:
    """The predicted flight that was latest: what was known, what was predicted, what became of it."""
    row_of = {name: row for row, name in enumerate(features.flights)}
    named = max(predictions(store), key=lambda each: features.columns["delay"][row_of[each.flight]], default=None)
    if named is None:
        return ["Nothing was predicted."]
    row = row_of[named.flight]
    known = ", ".join(
        f"{name} {features.columns[name][row]:.1f}" for name in ("wind", "airport_delay", "carrier_delay")
    )
    return [
        f"{named.flight}, which left {features.columns['delay'][row]:,.0f} minutes late.",
        f"{named.model} gave it {100 * named.chance:.0f} %, from the events up to position {named.position:,};",
        f"it left at position {features.left[row]:,}. What the log had by then:",
        known,
    ]


def plot(curves: dict[str, Any]) -> str:
    """The share of late flights that are found against the share of false alarms."""
    return line_plot(
        "Late departures found, by share of false alarms",
        "Three curves: columns as known two hours before, with the aircraft, and with leaks, which is far above.",
        {**curves, "a guess": [(0.0, 0.0), (1.0, 1.0)]},
        labels={0.0: "0", 0.5: "half of the flights in time", 1.0: "all"},
    )


if __name__ == "__main__":
    sys.exit(main("delays", load, check))
