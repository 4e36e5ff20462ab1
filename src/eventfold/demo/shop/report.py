"""The end of the shop's report: commands to explore the store with; and a count while it is loaded.

Knows: texts, the command line's syntax. Does not know: how a figure is computed.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from eventfold.demo.fields import Checked
from eventfold.demo.fields.report import heading

FEATURED = "85123A"  # the product that earned most


@contextmanager
def counting() -> Generator[Callable[[int], None]]:
    """Show the number of events on standard error while the block runs, if that is a terminal."""
    shown = sys.stderr.isatty()

    def progress(events: int) -> None:
        if shown:
            sys.stderr.write(f"\r  {events:,} events")
            sys.stderr.flush()

    yield progress
    if shown:
        sys.stderr.write("\r" + " " * 30 + "\r")


def explore(url: str, checked: Checked) -> list[str]:
    """Commands, each below what it shows; long ones continue on a second line."""
    store, shop = shlex.quote(url), "eventfold.demo.shop"
    day = checked.figures.get("lowest_until", "2011-12-01")
    product = next(iter(checked.figures.get("lowest", {FEATURED: None})))
    commands = (
        ("the pieces of a product, today", f"eventfold state {store} {shop}:Stock product={product}"),
        (
            "its prices, as known on a day",
            f"eventfold state {store} {shop}:Prices {product} \\\n     --occurred-until {day}",
        ),
        ("what became of its stock", f"eventfold read {store} --tag product:{product} --limit 20"),
        ("revenue by country", f"eventfold rows {store} {shop}:Revenue \\\n     --order=-ordered --limit 10"),
        ("the customers who spent most", f"eventfold rows {store} {shop}:Spent \\\n     --order=-spent --limit 10"),
        ("prove that the log is unchanged", f"eventfold verify {store}"),
    )
    lines = heading("Explore the store")
    for words, command in commands:
        lines += [words, f"   {command}"]
    return lines
