"""The mutants of modules, and a sample of them by a seed.

Knows: cosmic-ray's operators; which mutants no test can see. Does not know: tests.
"""

from __future__ import annotations

import ast
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, WorkItem

UNSEEN_DECORATORS = ("overload", "override", "final", "runtime_checkable")
Span = tuple[tuple[int, int], tuple[int, int]]


def all_mutants(modules: Sequence[Path], root: Path) -> list[MutationSpec]:
    """Return every mutant of the modules, in a fixed order, without those that only a type checker notices."""
    with tempfile.TemporaryDirectory() as folder:
        database = WorkDB(Path(folder) / "all.sqlite", WorkDB.Mode.create)
        init([root / module for module in modules], database, {})
        found = [item.mutations[0] for item in database.work_items]
        database.close()
    hidden = {root / module: list(_unseen(root / module)) for module in modules}
    seen = [each for each in found if not any(_inside(each, span) for span in hidden[each.module_path])]
    return sorted(seen, key=lambda each: (str(each.module_path), each.start_pos, each.operator_name, each.occurrence))


def sample(mutants: Sequence[MutationSpec], size: int, seed: int) -> list[WorkItem]:
    """Return a sample of this size, the same for the same seed, in the order of the modules."""
    chosen = sorted(random.Random(seed).sample(range(len(mutants)), min(size, len(mutants))))
    return [WorkItem.single(f"{number:05}", mutants[number]) for number in chosen]


def _unseen(module: Path) -> Iterator[Span]:
    """Yield the spans of annotations, which these modules do not evaluate, and of decorators for type checkers."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        annotations = [getattr(node, name, None) for name in ("annotation", "returns")]
        decorators = [
            each
            for each in getattr(node, "decorator_list", ())
            if ast.unparse(each).rpartition(".")[2] in UNSEEN_DECORATORS
        ]
        for each in (*annotations, *decorators):
            if isinstance(each, ast.expr):
                yield (each.lineno, each.col_offset), (each.end_lineno or 0, each.end_col_offset or 0)


def _inside(mutant: MutationSpec, span: Span) -> bool:
    """Whether it begins within the span; a decorator's mutant begins at the @ before it."""
    (line, column), end = span
    return (line, column - 1) <= tuple(mutant.start_pos) < end
