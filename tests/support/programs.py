"""Programs and abilities of a machine that some tests need and that pip does not install.

Such a test is skipped by the name of what is missing, and the names are listed at the end of a run. Where the
environment variable REQUIRED is set, as `.ci/run` does, a test whose program is missing fails. What a machine does not
permit (a mount, a namespace) cannot be installed: such a test is skipped everywhere, by name.

Knows: pytest. Does not know: which test needs what.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, NoReturn

import pytest

REQUIRED = "EVENTFOLD_REQUIRE_PROGRAMS"
PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # with the folders where Debian puts servers
Found = Callable[[], bool]


class Missing(RuntimeError):
    """Something that a test needs is missing. Raised in a test or a fixture, it skips or fails the test.

    `package`: Debian's package of the program; empty for an ability, which no package provides.
    """

    def __init__(self, name: str, package: str = "") -> None:
        self.name = name
        self.package = package
        super().__init__(f"needs {name} (Debian: {package})" if package else f"needs {name}, not possible here")


def find_program(name: str) -> str | None:
    """Return the path of a program, also where it is only on root's PATH."""
    return shutil.which(name, path=PLACES)


def needs_program(name: str, package: str, found: Found | None = None) -> pytest.MarkDecorator:
    """Return a mark for tests that need a program. `found` returns whether it exists; without it the PATH decides."""
    return pytest.mark.needs(name, package, found or (lambda: find_program(name) is not None))


def needs_ability(name: str, found: Found) -> pytest.MarkDecorator:
    """Return a mark for tests that need what a kernel, a user or a file system may not permit."""
    return pytest.mark.needs(name, "", found)


@functools.cache
def _may_unshare() -> bool:
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


def needs_mounts(test: Any) -> Any:
    """Mark a test that gives a process a file system of its own."""
    return needs_program("unshare", "util-linux")(needs_ability("mounts of a user's own", _may_unshare)(test))


def _end(missing: Missing) -> NoReturn:
    if missing.package and os.environ.get(REQUIRED):
        pytest.fail(f"{missing}: {REQUIRED} is set, so that no test is left out for want of a program.", pytrace=False)
    pytest.skip(str(missing))


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", "needs(name, package, found): see tests/support/programs.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Check what a test's marks name, and what its fixtures miss."""
    try:
        for mark in sorted(item.iter_markers("needs"), key=lambda mark: not mark.args[1]):
            name, package, found = mark.args
            if not found():
                raise Missing(name, package)
        return (yield)
    except Missing as missing:
        _end(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip or fail a test that misses something while it runs."""
    try:
        return (yield)
    except Missing as missing:
        _end(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was missing, and how many tests were skipped for it."""
    skipped: list[Any] = terminalreporter.stats.get("skipped", [])
    reasons = (report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    lacking = Counter(found[1] for reason in reasons if (found := re.match(r"Skipped: needs (.*)", str(reason))))
    if lacking:
        terminalreporter.section("skipped: what this machine lacks")
        for name, tests in sorted(lacking.items()):
            terminalreporter.write_line(f"{name}: {tests} {'test' if tests == 1 else 'tests'}")
