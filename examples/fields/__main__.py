"""Runs the examples of the fields, each in a process of its own: `python -m examples.fields [NAME…]`.

Prints a table of what each took, and ends with exit code 1 if one of them found a difference. `--publish` writes the
table into docs/fields/index.md. Knows: the folders beside this file. Does not know: any example.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "fields" / "index.md"
BEGIN, END = "<!-- times: begin -->\n", "<!-- times: end -->\n"
TIMEOUT_S = 600
PICTURES = ROOT / "docs" / "figures"
UNPUBLISHED = {
    "exchange",
    "likes",
    "ward",
}  # the licences of their data forbid it: neither figures nor a plot go into documents


def names() -> list[str]:
    """The examples: every folder with a check."""
    return sorted(path.parent.name for path in HERE.glob("*/check.py"))


def run(name: str, publish: bool) -> tuple[int, dict[str, Any]]:
    """Run one example whole; return its exit code and its figures."""
    command = [sys.executable, "-m", f"examples.fields.{name}.check", "--json"]
    if publish and name not in UNPUBLISHED:
        command += ["--plot", str(PICTURES / f"fields-{name.replace('_', '-')}.svg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if not done.stdout:
        sys.stderr.write(done.stderr)
        return done.returncode or 1, {}
    return done.returncode, json.loads(done.stdout)


def row(name: str, code: int, found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    if not found:
        return [name, "failed", "", "", "", "", ""]
    seconds, rows, memory = sum(found["seconds"].values()), found["rows"], found["memory"] or 0
    verdict = "all agree" if code == 0 else f"{len(found['mismatches']):,} differ"
    figures = f"{found['compared']:,}, {verdict}"
    sizes = (f"{memory / 1e6:,.0f} MB", f"{found['size'] / 1e6:,.0f} MB")
    if name in UNPUBLISHED:
        return [name, "not published", "not published", f"{seconds:.0f} s", sizes[0], "not published", verdict]
    return [name, f"{rows['read']:,}", f"{rows['events']:,}", f"{seconds:.0f} s", *sizes, figures]


def main() -> int:
    """Run the examples that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m examples.fields", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names())}")
    parser.add_argument("--publish", action="store_true", help="write the table, and each plot, into the documents")
    given = parser.parse_args()
    head = ["example", "rows read", "events", "time", "memory", "store", "figures asked twice"]
    lines, worst = [head, ["---"] * len(head)], 0
    for name in given.names or names():
        code, found = run(name, given.publish)
        worst = max(worst, code)
        lines.append(row(name, code, found))
        print("  ".join(f"{cell:<14}" for cell in lines[-1]).rstrip(), flush=True)
    if given.publish and not worst:
        publish(lines)
    return worst


def publish(lines: list[list[str]]) -> None:
    """Write the table between its two marks in the page."""
    text = PAGE.read_text("utf-8")
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    note = f"\nOne run of {datetime.now(UTC):%Y-%m-%d}, whole data, each example in a process of its own.\n\n"
    PAGE.write_text(text[:begin] + note + table + "\n" + text[end:], "utf-8")


if __name__ == "__main__":
    sys.exit(main())
