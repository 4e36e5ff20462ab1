"""The page docs/reference/metrics.md, written from the table of metrics and the rules.

    python -m tests.monitoring.reference        writes it

Knows: the table, Markdown. Does not know: how a value is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from eventfold.monitoring.rules import rules
from eventfold.monitoring.table import METRICS, Metric

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
SOURCES = {
    "recorded": "counted in each process that measures the store",
    "state": "the state of the store",
    "server": "counted in each server",
}
TITLES = {
    "writing": "Writing",
    "reading": "Reading",
    "log": "The log",
    "read models": "Read models",
    "processes": "Processes and effects",
    "proof": "Verifications",
    "alerts": "Alerts on events",
    "server": "The server",
    "scrape": "Reading the metrics",
}
HEAD = """# Metrics

Made from the table in `src/eventfold/monitoring/table.py` by `python -m tests.monitoring.reference`. How to use them:
[Metrics, a dashboard, and alerts](../how-to/metrics.md).

Every metric of a store has the label `store`. A histogram `NAME` has the series `NAME_bucket`, `NAME_sum`
and `NAME_count`.
"""


def cell(text: str) -> str:
    """Text inside a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def row(metric: Metric) -> str:
    """A metric as a row."""
    labels = ", ".join(f"`{each}`" for each in metric.labels)
    unit = f" In {metric.unit}." if metric.unit else ""
    kind = metric.kind
    if metric.buckets:
        kind = f"histogram, {metric.buckets[0]:g} to {metric.buckets[-1]:g}"
    return f"| `{metric.full_name}` | {kind} | {labels} | {cell(metric.help)}{unit} | {SOURCES[metric.source]} |"


def page() -> Iterator[str]:
    """The lines of the page."""
    yield HEAD
    for group, found in groupby(METRICS, key=lambda each: each.group):
        yield f"## {TITLES[group]}\n"
        yield "| Metric | Kind | Labels | Meaning | Source |\n|---|---|---|---|---|"
        yield from (row(each) for each in found)
        yield ""
    yield "## Alert rules\n"
    yield "`eventfold alert-rules` prints them. The first column is the name after `Eventfold`.\n"
    yield "| Alert | Expression | For | Severity | Action |\n|---|---|---|---|---|"
    for each in rules():
        act = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: found[1].upper(), each.act)
        wait = "at once" if each.wait == "0s" else each.wait
        expression = each.expression.replace("|", "\\|")
        yield f"| {each.name} | `{expression}` | {wait} | {each.severity} | {cell(act)} |"


def text() -> str:
    """The page."""
    return "\n".join(page()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), "utf-8")
