"""Which tests run a line: one run of the tests under coverage, whose result later runs reuse.

Knows: coverage's data. Does not know: how a mutant is made.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from coverage import CoverageData

from mutants import contexts, tree

PYTEST = ("-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist")
SEEDED = ("--hypothesis-seed=0",)


class Covering:
    """The tests that run each line of the modules, the fastest first."""

    def __init__(self, folder: Path, copied: Path) -> None:
        self._folder, self._copied = folder, copied
        self._lines: dict[Path, dict[int, list[str]]] = {}
        self._starts: dict[Path, dict[int, int]] = {}
        self.seconds: dict[str, float] = {}

    def measure(self, tests: Sequence[str]) -> None:
        """Run the tests under coverage, unless there is the result of a run of the same sources and tests."""
        data, times = self._folder / "coverage", self._folder / "times.json"
        if not (data.exists() and times.exists()):
            data.unlink(missing_ok=True)
            measured = ("-m", "coverage", "run", f"--data-file={data}", f"--source={self._copied / 'src'}")
            command = [sys.executable, *measured, *PYTEST, *SEEDED, "-p", "mutants.contexts", *tests]
            environment = {**tree.environment(self._copied), contexts.TIMES: str(times)}
            done = subprocess.run(command, cwd=self._copied, env=environment, check=False)
            if done.returncode not in (0, 1) or not times.exists():
                raise SystemExit(f"pytest ended with {done.returncode}: these tests cannot be run.")
        self.seconds = json.loads(times.read_text("utf-8"))
        self._data = CoverageData(str(data))
        self._data.read()

    def tests(self, module: Path, first: int, last: int) -> list[str]:
        """Return the tests that run one of these lines; for lines run at import, those of files that use the module."""
        lines = self._of(module)
        found = _tests(lines, range(first, last + 1)) or _tests(lines, [self._statement(module, first)])
        if found == {""}:
            # The default of a field is set at import and read by compiled code: no test runs this line.
            files = {test.partition("::")[0] for test in _tests(lines, lines)}
            found = {test for test in self.seconds if test.partition("::")[0] in files}
        return sorted(found & self.seconds.keys(), key=lambda test: self.seconds[test])

    def _of(self, module: Path) -> dict[int, list[str]]:
        if module not in self._lines:
            self._lines[module] = self._data.contexts_by_lineno(str(self._copied / module))
        return self._lines[module]

    def _statement(self, module: Path, line: int) -> int:
        """The first line of the innermost statement around a line: the one that coverage may have recorded."""
        if module not in self._starts:
            starts = dict[int, int]()
            for node in ast.walk(ast.parse((self._copied / module).read_text("utf-8"))):
                if isinstance(node, ast.stmt):
                    starts |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.lineno)
            self._starts[module] = starts
        return self._starts[module].get(line, line)


def _tests(lines: dict[int, list[str]], chosen: Iterable[int]) -> set[str]:
    return {test for line in chosen for test in lines.get(line, ())}
