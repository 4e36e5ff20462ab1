"""The table of a session, its survivors, and which of them are explained.

Knows: results, mutants/explained.toml. Does not know: how mutants are tried.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

from mutants.trial import TIMED_OUT

EXPLAINED = Path(__file__).with_name("explained.toml")
COLUMNS = ("mutants", "killed", "timed out", "survived", "explained", "no test", "open")
Tried = tuple[MutationSpec, WorkResult]


class Explanation(NamedTuple):
    """Why mutants of a line cannot or need not be killed. The line and its replacement: as in the list of survivors."""

    module: str
    before: str
    after: str
    reason: str


def explanations(path: Path = EXPLAINED) -> list[Explanation]:
    """Read the file of explanations."""
    return [Explanation(**each) for each in tomllib.loads(path.read_text("utf-8")).get("mutant", [])]


def fate(mutant: MutationSpec, result: WorkResult, known: Sequence[Explanation]) -> str:
    """Return the column in which a mutant is counted."""
    if result.worker_outcome not in (WorkerOutcome.NORMAL, WorkerOutcome.NO_TEST):
        return "open"
    if result.worker_outcome is WorkerOutcome.NORMAL and result.test_outcome is not TestOutcome.SURVIVED:
        return "timed out" if result.output == TIMED_OUT else "killed"
    before, after = changed(result)
    is_known = any(
        mutant.module_path.as_posix().endswith(each.module) and each.before == before and each.after in ("*", after)
        for each in known
    )
    if is_known:
        return "explained"
    return "no test" if result.worker_outcome is WorkerOutcome.NO_TEST else "survived"


def changed(result: WorkResult) -> tuple[str, str]:
    """Return the changed lines before and after, without indentation."""
    lines = (result.diff or "").splitlines()
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return before, after


def table(tried: Sequence[Tried], of: int) -> str:
    """Format a row for each module, the sum, and an entry for each mutant that is neither killed nor explained."""
    known = explanations()
    counts = dict[str, Counter[str]]()
    open_ones = list[str]()
    for mutant, result in tried:
        found = fate(mutant, result, known)
        module = "/".join(mutant.module_path.parts[-2:])
        counts.setdefault(module, Counter())[found] += 1
        if found in ("survived", "no test", "open"):
            before, after = changed(result)
            open_ones.append(f"{module}:{mutant.start_pos[0]} ({found})\n  - {before}\n  + {after}")
    head = f"{'module':<28}" + "".join(f"{name:>11}" for name in COLUMNS)
    rows = [_row(module, count) for module, count in sorted(counts.items())]
    whole = sum(counts.values(), Counter[str]())
    rows += ["-" * len(head), _row("all", whole)]
    missing = f"{len(tried)} of {of} mutants tried; {len(open_ones)} neither killed nor explained"
    return "\n".join(["", head, *rows, "", *open_ones, "", missing])


def _row(name: str, count: Counter[str]) -> str:
    cells = [count.total(), *(count[column] for column in COLUMNS[1:])]
    return f"{name:<28}" + "".join(f"{cell:>11}" for cell in cells)
