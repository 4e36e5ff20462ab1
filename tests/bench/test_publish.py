"""What README and the page of figures say is what the published run's file gives."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import pages, publish, runfile
from benchmarks.groups import GROUPS
from benchmarks.machine import ROOT
from benchmarks.measure import Figure, Sample, Settings
from benchmarks.runfile import RunFile
from benchmarks.tables import COLUMNS, GROWTH, ROWS

QUIET = {"seconds": 10.0, "cpu": 9.0, "load": [0.1, 1.0], "others": 0.02, "stolen": 0.0, "fdatasync_us": [90.0, 95.0]}


@pytest.fixture
def run(tmp_path: Path) -> RunFile:
    """A complete run on a quiet machine with invented figures: eventfold's are 2,000, those of all others 1,000."""
    made = RunFile.begin(tmp_path / "2026-01-02-machine.json", Settings(), tmp_path)
    made.document["modified"] = False
    others: dict[str, Sample | str] = {names[0]: Sample((1000.0, 1000.0)) for _, names in COLUMNS}
    for row in ROWS:
        beside: dict[str, Sample | str] = {name: Sample((1000.0, 1000.0)) for name, _ in row.beside}
        for key in (row.key, row.p99):
            figure = Figure("title", f"name of {key}", "events/s", Sample((2000.0, 2000.0)), others | beside, key=key)
            if key:
                made.add(row.group, figure)
    for size, times in ((10_000, 1.0), (10_000_000, 1.25)):
        for _, what in (*GROWTH, ("", "bytes")):
            figure = Figure("growth", what, "events/s", Sample((2000.0 / times,)), key=f"{what} at {size}")
            figure.details = {"times": times}
            made.add("growth", figure)
    for group in GROUPS:
        made.visited(group.name, QUIET, complete=True)
    return made


def readme() -> str:
    """README's text."""
    return (ROOT / publish.README).read_text(encoding="utf-8")


def test_readme_and_the_page_of_figures_are_what_the_run_gives() -> None:
    """The run that README names is the one of the page and its pictures, and no number in them was changed by hand.

    As soon as there is a run among the results, one is published.
    """
    path = publish.published(readme())
    if path is None:
        assert not list(runfile.RESULTS.glob("*.json")), "publish one of the runs: python -m benchmarks.publish FILE"
        assert (ROOT / publish.PAGE).read_text(encoding="utf-8") == pages.page(None)
        return
    run = RunFile.load(path)
    for name, text in publish.documents(run, readme()).items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name}: run `python -m benchmarks.publish`"


def test_each_row_shows_the_figure_its_p99_and_its_ratios(run: RunFile) -> None:
    """A row has the value, the ratio to each contender of the columns, and the ratio to what stands beside."""
    text = publish.readme_with(
        "before\n<!-- figures: none yet -->\ntyped by hand\n<!-- end of figures -->\nafter\n", run
    )
    assert text.startswith("before\n<!-- figures: 2026-01-02-machine.json -->\n")
    assert text.endswith("<!-- end of figures -->\nafter\n")
    assert "typed by hand" not in text
    assert "| one writer, one event an append | 2,000/s (p99 2,000/s) | 2.0× | 2.0× | 2.0× | 2.0× | – |" in text
    assert "| 32 tasks, one event each | 2,000/s | 2.0× | 2.0× | 2.0× | 2.0× | 2.0× one writer |" in text
    assert (
        "| one event an append, 10,000,000 events stored | 1,600/s | – | – | – | – | 0.80× the speed at 10,000 |"
        in text
    )
    for row in ROWS:
        assert f"\n| {row.label} | " in text
    assert publish.readme_with(text, run) == text


def test_the_page_shows_every_figure_the_growth_and_what_else_used_the_machine(run: RunFile) -> None:
    """Each figure of the run is in a table of the page, growth in one with a line for each size."""
    text = pages.page(run)
    for row in ROWS:
        assert f"| name of {row.key} | 2,000 events/s |" in text
    assert "| 10,000,000 | 1,600/s | 1,600/s | 1,600/s | 1,600/s | 1,600/s |" in text
    assert "| growth | 10 | 0.10, 1.00 | 0.02 | 90 µs, 95 µs |" in text


def test_pictures_are_svg_and_the_same_for_the_same_run(run: RunFile) -> None:
    """Both pictures are well-formed, name every line, and are the same when they are made again."""
    made = pages.pictures(run)
    assert set(made) == {pages.APPEND_PICTURE, pages.GROWTH_PICTURE}
    for picture in made.values():
        assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    for name, _ in COLUMNS:
        assert f">{name}</text>" in made[pages.APPEND_PICTURE]
    for label, _ in GROWTH:
        assert f">{label}</text>" in made[pages.GROWTH_PICTURE]
    assert pages.pictures(run) == made


def test_a_run_that_is_not_fit_is_not_published(
    run: RunFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A quick, noisy or incomplete run is refused with every reason, and no document is written."""
    monkeypatch.setattr(publish, "RESULTS", run.path.parent)
    assert publish.refusals(run) == []
    run.document["settings"] |= {"quick": True}
    run.document["groups"]["append"]["visits"] = [{**QUIET, "seconds": 1000.0, "others": 1.2}]
    run.document["groups"]["append"]["figures"] = []
    run.save()
    before = readme()
    assert publish.main([str(run.path)]) == 1
    said = capsys.readouterr().err
    assert "no figure for: one writer, one event an append" in said
    assert "its sizes are too small" in said
    assert "the machine was not quiet" in said
    assert "Nothing was published." in said
    assert readme() == before


def test_a_readme_without_a_place_for_figures_is_an_error(run: RunFile) -> None:
    """The message names the lines to add."""
    with pytest.raises(ValueError, match="Add <!-- figures: none yet --> and <!-- end of figures -->"):
        publish.published("# eventfold\n")


def test_a_file_of_a_run_gives_the_figures_that_were_written(run: RunFile) -> None:
    """Values, ratios, targets and details are the same after reading, and a value that is missing stays missing."""
    figure = Figure(
        "title", "name", "ms", Sample((1.0, float("nan"))), {"a": Sample((2.0, 2.0)), "b": "not here"}, "lower"
    )
    figure.key, figure.details = "key", {"p50": 0.5}
    figure.aim("< 2 ms", True, False)
    run.add("hot", figure)
    (read,) = [each for each in RunFile.load(run.path).figures("hot") if each.key == "key"]
    assert replace(read, ours=figure.ours) == figure
    assert repr(read.ours) == repr(figure.ours)
