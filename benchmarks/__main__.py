"""The entry point of the benchmarks: `python -m benchmarks`.

Knows: the options, which run is resumed, the order and the time limit of groups. Does not know: what a group measures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import machine, report, runfile
from benchmarks.groups import BY_NAME, GROUPS, Group
from benchmarks.measure import Missing, Settings
from benchmarks.publish import README, published
from benchmarks.runfile import RunFile
from benchmarks.stage import Stage

QUICK_FILE = machine.ROOT / "build" / "bench" / "quick.json"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    names = ", ".join(BY_NAME)
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="eventfold beside the raw floor, a prototype and its peers, in one run."
    )
    flag = parser.add_argument
    flag("--quick", action="store_true", help="small sizes, under a minute, kept in build/bench: to see that it works")
    flag("--only", action="append", choices=BY_NAME, metavar="GROUP", help=f"one of {names}; may be repeated")
    flag("--without", action="append", choices=BY_NAME, metavar="GROUP", default=[], help="leave a group out")
    flag(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue an unfinished run of this commit",
    )
    flag("--minutes", type=float, metavar="M", help="begin no group that would end later, by the time it usually takes")
    flag("--file", type=Path, metavar="FILE", help="the run's file instead of one in benchmarks/results")
    flag("--folder", type=Path, metavar="DIR", help="where the stores are put, on the disk to be measured")
    flag("--largest", type=int, metavar="N", help="grow to N events instead of 10,000,000")
    flag("--memory", action="store_true", help="hold the growing store in memory (/dev/shm)")
    flag("--stored", type=int, metavar="N", help="events in every store beforehand")
    flag("--seconds", type=float, metavar="S", help="length of one turn")
    flag("--rounds", type=int, metavar="N", help="turns of each contender")
    flag("--list", action="store_true", help="print the groups and their time, and measure nothing")
    return parser.parse_args(arguments)


def settings_of(asked: argparse.Namespace) -> Settings:
    """Return the sizes to run with."""
    settings = Settings.small() if asked.quick else Settings()
    given = {name: getattr(asked, name) for name in ("stored", "seconds", "rounds") if getattr(asked, name) is not None}
    settings = replace(settings, **given, memory=asked.memory)
    if asked.seconds is not None:
        settings = replace(settings, append=min(settings.append, 4 * asked.seconds))
    if asked.largest:
        smaller = tuple(size for size in settings.growth if size < asked.largest)
        settings = replace(settings, growth=(*smaller, asked.largest))
    return settings


def run_of(asked: argparse.Namespace, settings: Settings, scratch: Path) -> RunFile:
    """Return the run to continue, or a new one; a quick run is always new. No file of an earlier run is overwritten.

    Raises ValueError if the file that was named is one that cannot be continued.
    """
    if asked.file is None and asked.quick:
        return RunFile.begin(QUICK_FILE, settings, scratch)
    if asked.file is None:
        facts = machine.machine(scratch)
        found = runfile.to_resume(settings, facts) if asked.resume else None
        if found is None or found.path == published((machine.ROOT / README).read_text(encoding="utf-8")):
            return RunFile.begin(runfile.new_path(facts), settings, scratch)
        return found
    if not asked.file.exists():
        return RunFile.begin(asked.file, settings, scratch)
    found = RunFile.load(asked.file)
    if not asked.resume or asked.quick or not found.is_resumable(settings):
        raise ValueError(f"{asked.file} exists and is not continued by this run. Name another file.")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 0 if everything asked for was measured, whatever the figures; else 1."""
    asked = options(arguments)
    if asked.list:
        for group in GROUPS:
            print(f"{group.name:12} {group.seconds:4} s  {group.about}")
        return 0
    settings = settings_of(asked)
    groups = [g for g in GROUPS if (not asked.only or g.name in asked.only) and g.name not in asked.without]
    with tempfile.TemporaryDirectory(prefix="eventfold-bench-", dir=asked.folder) as scratch:
        try:
            run = run_of(asked, settings, Path(scratch))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"The run is kept in {run.path}.", file=sys.stderr)
        with Stage(settings, Path(scratch) / "stage") as stage:
            failed = _measure(run, stage, groups, asked.minutes)
    report.show(run)
    for line in failed:
        print(f"Not measured to its end: {line}", file=sys.stderr)
    return 1 if failed else 0


def _measure(run: RunFile, stage: Stage, groups: Sequence[Group], minutes: float | None) -> list[str]:
    """Measure the groups that the run does not have. Returns a line for each that was left out or failed."""
    began, failed = time.monotonic(), list[str]()
    for group in groups:
        if run.is_complete(group.name):
            print(f"{group.name}: measured before", file=sys.stderr)
            continue
        seconds = 0 if stage.settings.quick else group.seconds
        if minutes is not None and time.monotonic() - began + seconds > minutes * 60:
            failed.append(f"{group.name}: about {seconds} s, which is more than is left of {minutes:g} minutes")
            continue
        try:
            _measure_group(run, stage, group)
        except Exception as error:  # noqa: BLE001 (finished figures are kept, the other groups still run)
            traceback.print_exception(error)
            failed.append(f"{group.name}: {type(error).__name__}: {error}")
    return failed


def _measure_group(run: RunFile, stage: Stage, group: Group) -> None:
    """Measure a group; each figure is written at once."""
    stage.kept = {figure.key: figure for figure in run.figures(group.name)}
    stage.folder.mkdir(parents=True, exist_ok=True)
    meanwhile, complete = machine.Disturbance(stage.folder), False
    try:
        for figure in group.run(stage, _announcer(group.name)):
            stage.kept[figure.key] = figure
            run.add(group.name, figure)
            report.show_one(figure)
        complete = True
    except Missing as reason:
        _announcer(group.name)(f"left out: {reason}")
        complete = True
    finally:
        stage.strike()
        run.visited(group.name, meanwhile.end(), complete=complete)


def _announcer(group: str) -> Callable[[str], None]:
    return lambda what: print(f"{group}: {what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
