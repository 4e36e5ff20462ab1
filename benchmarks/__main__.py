"""The entry point of the benchmarks: `python -m benchmarks`.

Knows: the groups and the options. Does not know: what a group measures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.groups import BY_NAME
from benchmarks.measure import Figure, Settings
from benchmarks.stage import Stage

LONG = ("postgres", "growth")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description="eventfold against the raw floor and its peers."
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute: to see that it works")
    parser.add_argument(
        "--only",
        action="append",
        choices=BY_NAME,
        metavar="NAME",
        help=f"one of {', '.join(BY_NAME)}; may be repeated",
    )
    parser.add_argument(
        "--growth", action="store_true", help="also grow stores to 3,000,000 events (minutes, 4 GB of disk)"
    )
    parser.add_argument("--largest", type=int, metavar="N", help="grow to N events instead of 3,000,000")
    parser.add_argument("--postgres", action="store_true", help="also measure PostgreSQL, on a server of its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn of every contender there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there as Markdown")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the stores are put, on the disk to be measured"
    )
    parser.add_argument("--stored", type=int, metavar="N", help="events in every store beforehand")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of one turn")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each contender")
    return parser.parse_args(arguments)


def settings_of(asked: argparse.Namespace) -> Settings:
    """Return the sizes to run with."""
    settings = Settings.small() if asked.quick else Settings()
    given = {name: getattr(asked, name) for name in ("stored", "seconds", "rounds") if getattr(asked, name) is not None}
    settings = replace(settings, **given)
    if asked.largest:
        smaller = tuple(size for size in settings.growth if size < asked.largest)
        settings = replace(settings, growth=(*smaller, asked.largest))
    return settings


def main(arguments: list[str] | None = None) -> int:
    """Run the groups and print the figures. Returns 0 for any figures, and 1 if a group raised an error."""
    asked = options(arguments)
    settings = settings_of(asked)
    wanted = asked.only or [name for name in BY_NAME if name not in LONG or getattr(asked, name)]
    figures: list[Figure] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="eventfold-bench-", dir=asked.folder) as scratch:
        head = report.header(settings, Path(scratch))
        with Stage(settings, Path(scratch) / "stage") as stage:
            for name in wanted:
                try:
                    for figure in BY_NAME[name].run(stage, _announcer(name)):
                        figures.append(figure)
                        report.show_one(figure)
                        _write(asked, head, settings, figures)
                except Exception as error:  # noqa: BLE001 (finished figures are kept, the other groups still run)
                    traceback.print_exception(error)
                    failed.append(f"{name}: {type(error).__name__}: {error}")
                finally:
                    stage.strike()
    report.show(head, figures)
    for line in failed:
        print(f"Not measured to its end: {line}", file=sys.stderr)
    return 1 if failed else 0


def _write(asked: argparse.Namespace, head: dict[str, str], settings: Settings, figures: list[Figure]) -> None:
    """Write everything measured so far, so that a stopped run loses nothing."""
    if asked.json:
        asked.json.write_text(report.as_json(head, settings, figures), encoding="utf-8")
    if asked.markdown:
        asked.markdown.write_text(report.markdown(head, figures), encoding="utf-8")


def _announcer(group: str) -> Callable[[str], None]:
    return lambda what: print(f"{group}: {what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
