"""Writes README's table and the page of figures from the file of one run: `python -m benchmarks.publish FILE`.

Knows: where the figures stand in the documents, what makes a run fit to be published. Does not know: how they look.
Nothing in these places is typed by hand: `tests/bench` compares them with what the file gives. Without FILE, the run
that README names is published again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import pages, report
from benchmarks.machine import ROOT
from benchmarks.runfile import RESULTS, RunFile

README = Path("README.md")
PAGE = pages.FOLDER / "figures.md"
PLACE = re.compile(r"(?s)<!-- figures: (.*?) -->\n.*?<!-- end of figures -->\n")
NONE = "none yet"


def published(readme: str) -> Path | None:
    """Return the file that README's table was made from; None before the first. Raises ValueError without a place."""
    place = PLACE.search(readme)
    if place is None:
        raise ValueError(
            "README.md has no place for figures. Add <!-- figures: none yet --> and <!-- end of figures -->."
        )
    return None if place[1] == NONE else RESULTS / place[1]


def readme_with(readme: str, run: RunFile) -> str:
    """Return README's text with the figures of a run in their place."""
    text = f"<!-- figures: {run.path.name} -->\n{pages.block(run)}<!-- end of figures -->\n"
    return PLACE.sub(lambda _: text, readme, count=1)


def documents(run: RunFile, readme: str) -> dict[Path, str]:
    """Return every document that has figures of the run, by path."""
    return {README: readme_with(readme, run), PAGE: pages.page(run), **pages.pictures(run)}


def refusals(run: RunFile) -> list[str]:
    """Return what speaks against publishing a run."""
    found = [f"it has no figure for: {label}" for label in pages.Figures(run).missing()]
    if run.document["settings"]["quick"]:
        found.append("it is a quick run: its sizes are too small")
    if run.document["modified"]:
        found.append("files differed from the commit that it names")
    if not report.is_quiet(run):
        found.append(f"the machine was not quiet: {report.noise(run)}")
    if run.path.resolve().parent != RESULTS:
        found.append("its file is not in benchmarks/results")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the documents. Returns 1 if the run is not fit to be published."""
    parser = argparse.ArgumentParser("python -m benchmarks.publish", description="Publish the figures of one run.")
    parser.add_argument("file", type=Path, nargs="?", help="the run; without it, the one that README names")
    parser.add_argument("--anyway", action="store_true", help="publish a noisy or incomplete run; the documents say so")
    asked = parser.parse_args(arguments)
    readme = (ROOT / README).read_text(encoding="utf-8")
    path: Path | None = asked.file or published(readme)
    if path is None:
        print("No run has been published yet. Name the file of one.", file=sys.stderr)
        return 1
    run = RunFile.load(path)
    against = refusals(run)
    for reason in against:
        print(f"{path.name}: {reason}", file=sys.stderr)
    if against and not asked.anyway:
        print("Nothing was published. Repeat the run, or publish it with --anyway.", file=sys.stderr)
        return 1
    for name, text in documents(run, readme).items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
