"""The benchmarks run from end to end, at sizes too small to measure speed. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import append, hot
from benchmarks.__main__ import main
from benchmarks.measure import Figure, Missing, Sample
from benchmarks.peers import package

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--quick", "--stored", "600", "--seconds", "0.01", "--rounds", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `python -m benchmarks --only append` wrote, and its terminal output in `out.txt`."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", *TINY, "--only", "append", "--folder", str(folder)]
    command += ["--json", str(folder / "figures.json"), "--markdown", str(folder / "figures.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "out.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_every_figure_of_the_group_has_a_value_beside_the_floor(run: Path) -> None:
    """There are four sizes of append; eventfold and both raw drivers always take part, a missing peer has a reason."""
    figures = json.loads((run / "figures.json").read_text(encoding="utf-8"))["figures"]
    assert len(figures) == 4
    for figure in figures:
        assert figure["eventfold"]["median"] > 0
        assert figure["ratios"]["raw sqlite3"] > 0
        assert figure["ratios"]["raw apsw"] > 0
        for other in figure["others"].values():
            assert other["median"] > 0 if isinstance(other, dict) else other


def test_the_header_says_what_a_reader_must_know_to_judge(run: Path) -> None:
    """Machine, disk, versions, durability, date and method are printed above the figures."""
    header = json.loads((run / "figures.json").read_text(encoding="utf-8"))["header"]
    assert {"date", "machine", "disk", "system", "eventfold", "peers", "durability", "stored", "method"} <= set(header)


def test_terminal_and_markdown_show_the_same_figures(run: Path) -> None:
    """The Markdown for the README is written from the same run as the tables on the terminal."""
    markdown, shown = (run / "figures.md").read_text(encoding="utf-8"), (run / "out.txt").read_text(encoding="utf-8")
    for count in ("1 event an append", "10 events an append", "100 events an append", "1,000 events an append"):
        assert count in markdown
        assert count.split()[0] in shown


def test_a_group_that_fails_loses_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it measured before is written, the groups after it are measured, and the exit code shows the failure."""

    def failing(*_: Any) -> Iterator[Figure]:
        yield Figure("append", "the first", "events/s", Sample((1.0,)))
        assert [each["name"] for each in json.loads(file.read_text(encoding="utf-8"))["figures"]] == ["the first"]
        raise RuntimeError("no more")

    def going(*_: Any) -> Iterator[Figure]:
        yield Figure("hot", "the second", "events/s", Sample((2.0,)))

    file = tmp_path / "figures.json"
    monkeypatch.setattr(append, "run", failing)
    monkeypatch.setattr(hot, "run", going)
    assert main(["--only", "append", "--only", "hot", "--json", str(file), "--folder", str(tmp_path)]) == 1
    assert [each["name"] for each in json.loads(file.read_text(encoding="utf-8"))["figures"]] == [
        "the first",
        "the second",
    ]
    assert "append: RuntimeError: no more" in capsys.readouterr().err


def test_a_peer_whose_driver_is_missing_is_left_out_with_the_reason() -> None:
    """A module that is not installed is named, and raises the error that takes a contender out of the tables."""
    with pytest.raises(Missing, match="No module named 'eventsourcing_of_nowhere'"):
        package("eventsourcing_of_nowhere")


def test_nothing_is_left_behind(run: Path) -> None:
    """Stores, servers' files and probes are removed."""
    assert sorted(p.name for p in run.iterdir()) == ["figures.json", "figures.md", "out.txt"]


def test_decisions_and_read_models_are_measured_to_the_end(tmp_path: Path) -> None:
    """Every figure of both groups has a value, at small sizes; each has a target."""
    command = [sys.executable, "-m", "benchmarks", *TINY, "--only", "decisions", "--only", "projections"]
    command += ["--json", str(tmp_path / "figures.json"), "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["figures"]
    assert {figure["group"] for figure in figures} == {"decisions", "projections"}
    assert sum(bool(figure["target"]) for figure in figures) >= 9
    assert all(figure["eventfold"]["median"] > 0 for figure in figures)
