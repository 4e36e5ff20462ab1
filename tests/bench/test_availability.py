"""The page on availability shows the files of its runs; an outage is the longest gap between acknowledgements."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import eventfold as ef
from benchmarks import availability, outages, upgrades
from eventfold.concurrency.run import run
from eventfold.ports.services import require


def test_the_page_shows_the_runs_that_are_kept() -> None:
    """Nothing in the tables is typed: written again, the page is the same."""
    text = availability.PAGE.read_text("utf-8")
    for module, table in (
        (availability, availability.table(availability.read_results())),
        (upgrades, upgrades.table(json.loads(upgrades.RESULTS.read_text("utf-8")))),
    ):
        assert availability.with_table(text, module.BEGIN, module.END, table) == text


def test_figures_measured_elsewhere_fill_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`record` adds the figures of a deployment, and names the deployments if there is none of that name."""
    page = tmp_path / "page.md"
    page.write_text(availability.PAGE.read_text("utf-8"))
    monkeypatch.setattr(availability, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(availability, "PAGE", page)
    availability.main(["record", "cluster", "outage=4.5,4.1,5", "throughput=9000"])
    assert "4.5 s, at most 5.0 s (3 rounds): `kill -9` of the stream's leader" in page.read_text()
    assert "| 9,000/s |" in page.read_text()
    with pytest.raises(SystemExit, match="postgres-standby"):
        availability.main(["record", "clusters", "outage=1"])


def test_a_gap_is_the_time_without_an_acknowledgement(tmp_path: Path) -> None:
    """Another writer holds the file for a third of a second: the gap is not shorter."""
    path = str(tmp_path / "store.db")
    with ef.Store(path) as store, ef.Store(path) as other:
        writers = outages.Writers(store)

        async def hold(_turn: object) -> None:
            time.sleep(0.3)

        inline = require(other.engine, "inline")
        gap = writers.gap_over(lambda: run(inline.exclusive(hold)), more=20)
        writers.stop()
    assert gap >= 0.3
    assert writers.failed == []
