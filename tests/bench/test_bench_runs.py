"""The benchmarks run from end to end, at sizes too small to measure speed. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import append, hot, machine, runfile
from benchmarks.__main__ import main, options, settings_of
from benchmarks.groups import BY_NAME, GROUPS
from benchmarks.measure import Figure, Missing, Sample, Settings
from benchmarks.peers import package
from benchmarks.runfile import RunFile
from benchmarks.stage import Stage
from benchmarks.tables import GROWTH, ROWS

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--quick", "--stored", "600", "--seconds", "0.01", "--rounds", "1"]
TWO = ["--only", "append", "--only", "hot"]


def document_of(path: Path) -> dict[str, Any]:
    """The document of a run's file."""
    return json.loads(path.read_text(encoding="utf-8"))


def keys_in(path: Path, group: str) -> list[str]:
    """The keys of the figures of a group in a run's file."""
    return [figure["key"] for figure in document_of(path)["groups"][group]["figures"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the file that `python -m benchmarks --only append` wrote, and its terminal output in `out.txt`."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", *TINY, "--only", "append", "--folder", str(folder)]
    command += ["--file", str(folder / "run.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "out.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_every_figure_of_the_group_has_a_value_beside_the_floor(run: Path) -> None:
    """There are four sizes of append, each with its p99. Floor and prototype take part, a missing peer has a reason."""
    figures = document_of(run / "run.json")["groups"]["append"]["figures"]
    assert len(figures) == 8
    for figure in figures:
        assert figure["eventfold"]["median"] > 0
        assert figure["ratios"]["raw apsw"] > 0
        assert figure["ratios"]["prototype"] > 0
        for other in figure["others"].values():
            assert other["median"] > 0 if isinstance(other, dict) else other


def test_the_file_says_what_a_reader_must_know_to_judge(run: Path) -> None:
    """Commit, machine, disk, versions, sizes, and for each group its time and what else used the machine meanwhile."""
    document = document_of(run / "run.json")
    assert {"processor", "cores", "memory_gib", "kernel", "disk", "fdatasync_us", "load"} == set(document["machine"])
    assert {"python", "sqlite", "apsw", "postgresql", "eventsourcing", "umadb"} <= set(document["versions"])
    assert document["commit"]
    assert document["settings"]["stored"] == 600
    (visit,) = document["groups"]["append"]["visits"]
    assert {"seconds", "cpu", "load", "others", "stolen", "fdatasync_us"} == set(visit)


def test_the_terminal_shows_each_figure_with_its_goal(run: Path) -> None:
    """The tables have a column of goals, and the last line says what disturbed the run."""
    shown = (run / "out.txt").read_text(encoding="utf-8")
    for text in ("1 event an append", "1,000 events an append", "vs prototype", "goal", "load average at"):
        assert text in shown


def test_nothing_is_left_behind(run: Path) -> None:
    """Stores, servers' files and probes are removed."""
    assert sorted(p.name for p in run.iterdir()) == ["out.txt", "run.json"]


def yielding(*keys: str, then: BaseException | None = None) -> Any:
    """The `run` of a group that yields figures with these keys, each unless the run has it, and then raises `then`."""

    def of_group(stage: Stage, _announce: Any) -> Iterator[Figure]:
        for key in keys:
            if stage.wanted(key):
                yield Figure("title", key, "events/s", Sample((1.0, 2.0)), {"other": Sample((2.0, 2.0))}, key=key)
        if then:
            raise then

    return of_group


def test_a_group_that_fails_loses_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it measured before is written, the groups after it are measured, and the exit code shows the failure."""
    file = tmp_path / "run.json"

    def failing(*_: Any) -> Iterator[Figure]:
        yield Figure("append", "the first", "events/s", Sample((1.0,)))
        assert keys_in(file, "append") == ["the first"]
        raise RuntimeError("no more")

    monkeypatch.setattr(append, "run", failing)
    monkeypatch.setattr(hot, "run", yielding("the second"))
    assert main([*TWO, "--file", str(file), "--folder", str(tmp_path)]) == 1
    assert keys_in(file, "append") == ["the first"]
    assert keys_in(file, "hot") == ["the second"]
    assert "append: RuntimeError: no more" in capsys.readouterr().err


def test_a_run_that_was_stopped_is_resumed_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete group is not run again, and an incomplete one measures only what the file does not have."""
    file = tmp_path / "run.json"
    arguments = [*TWO, "--file", str(file), "--folder", str(tmp_path)]
    monkeypatch.setattr(append, "run", yielding("a", "b"))
    monkeypatch.setattr(hot, "run", yielding("c", then=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    assert [keys_in(file, name) for name in ("append", "hot")] == [["a", "b"], ["c"]]
    monkeypatch.setattr(append, "run", yielding("not measured again"))
    monkeypatch.setattr(hot, "run", yielding("c", "d"))
    assert main(arguments) == 0
    assert [keys_in(file, name) for name in ("append", "hot")] == [["a", "b"], ["c", "d"]]
    assert len(document_of(file)["groups"]["hot"]["visits"]) == 2


def test_a_run_of_another_commit_or_of_other_sizes_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new file is begun beside it; a file that was named is refused, and no run overwrites it."""
    settings, facts = Settings(), machine.machine(tmp_path)
    first = RunFile.begin(runfile.new_path(facts, tmp_path), settings, tmp_path)
    first.save()
    found = runfile.to_resume(settings, facts, tmp_path)
    assert found is not None
    assert found.path == first.path
    assert runfile.to_resume(Settings.small(), facts, tmp_path) is None
    assert runfile.new_path(facts, tmp_path).stem == f"{first.path.stem}-2"
    monkeypatch.setattr(machine, "commit", lambda: ("another", False))
    assert runfile.to_resume(settings, facts, tmp_path) is None
    assert main([*TWO, "--file", str(first.path), "--folder", str(tmp_path)]) == 1
    assert "is not continued by this run. Name another file." in capsys.readouterr().err
    kept = first.path.read_text(encoding="utf-8")
    for arguments in (["--quick"], ["--no-resume"]):
        assert main([*TWO, *arguments, "--file", str(first.path), "--folder", str(tmp_path)]) == 1
    assert first.path.read_text(encoding="utf-8") == kept


def test_a_group_that_would_take_too_long_is_left_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--minutes` begins no group that usually takes longer than what is left, and reports it."""
    monkeypatch.setattr(append, "run", yielding("a"))
    file = tmp_path / "run.json"
    assert main(["--only", "append", "--minutes", "0", "--file", str(file), "--folder", str(tmp_path)]) == 1
    assert "append: about" in capsys.readouterr().err
    assert not file.exists()


def test_every_group_has_a_module_and_a_time() -> None:
    """The names are unique, and each module has the function that yields its figures."""
    assert len(BY_NAME) == len(GROUPS)
    for group in GROUPS:
        assert group.seconds > 0
        assert callable(import_module(f"benchmarks.{group.name}").run)


def test_a_quick_run_is_not_kept_among_the_results() -> None:
    """Its sizes are small, and its file is under `build`."""
    asked = options(["--quick"])
    assert settings_of(asked).quick
    assert asked.file is None
    assert settings_of(options(["--largest", "50000"])).growth == (10_000, 30_000, 50_000)


def test_a_peer_whose_driver_is_missing_is_left_out_with_the_reason() -> None:
    """A module that is not installed is named, and raises the error that takes a contender out of the tables."""
    with pytest.raises(Missing, match="No module named 'eventsourcing_of_nowhere'"):
        package("eventsourcing_of_nowhere")


def test_decisions_read_models_and_growth_are_measured_to_the_end(tmp_path: Path) -> None:
    """Every figure of these groups has a value, at small sizes."""
    command = [sys.executable, "-m", "benchmarks", *TINY, "--folder", str(tmp_path)]
    command += [word for name in ("decisions", "projections", "growth") for word in ("--only", name)]
    command += ["--largest", "1500", "--file", str(tmp_path / "run.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    groups = document_of(tmp_path / "run.json")["groups"]
    assert set(groups) == {"decisions", "projections", "growth"}
    figures = [figure for group in groups.values() for figure in group["figures"]]
    assert sum(bool(figure["target"]) for figure in figures) >= 13
    assert all(figure["eventfold"]["median"] > 0 for figure in figures)
    shown = {(name, figure["key"]) for name, group in groups.items() for figure in group["figures"]}
    assert {(row.group, row.key) for row in ROWS if row.group in groups} <= shown
    assert {f"{what} at {size}" for _, what in GROWTH for size in (1000, 1500)} <= {key for _, key in shown}
