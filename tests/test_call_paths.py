"""How far a call is from the database: the functions on the stack when SQLite runs the statement that matters.

`tests/test_architecture.py` prints the paths into ARCHITECTURE.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType

import apsw
import pytest

import eventfold as ef

ROOT = Path(__file__).parents[1]
SOURCE = f"{ROOT / 'src' / 'eventfold'}/"
WARM = 3
# Upper bounds: functions on the stack, their files, functions that run from the call's start to its end, their files.
# On SQLite the first read of a process builds the tail in memory, and the first one after appends adds them to it.
BOUNDS = {
    "append": (14, 7, 55, 25),
    "decide": (20, 9, 145, 37),  # an event of an older class is folded as it is read: whether it is one is asked here
    "project": (13, 10, 293, 49),  # one function names the store in all errors; checksums are in a file of their own
    "rows": (9, 5, 75, 25),  # filters are checked, then compiled to SQL once for each shape
}
UNTIL = {
    "append": "`store.append(event)` to COMMIT",
    "decide": "`store.decide(rule, Account(...))` to COMMIT",
    "project": "`store.project(Balance)` to the first row that is written",
    "rows": "`store.rows(Balance, account=...)` to its SELECT",
}


class CallDeposited(ef.Event):
    """Money came to an account."""

    account: ef.Tag
    amount: int


class Account(ef.State):
    """What an account holds."""

    account: ef.Tag
    balance: int = 0

    def evolve(self, event: CallDeposited) -> None:
        """More."""
        self.balance += event.amount


class Balance(ef.Projection):
    """What each account holds, as rows."""

    account: str
    balance: int = 0

    def evolve(self, event: CallDeposited) -> None:
        """More."""
        self.balance += event.amount


def deposit(account: Account) -> ef.Event:
    """Always one more."""
    return CallDeposited(account.account, 1)


@dataclass
class CallPath:
    """One call: its stack at the statement, and every function of the package that ran from its start to its end."""

    stack: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    codes: set[CodeType] = field(default_factory=set[CodeType])

    @property
    def figures(self) -> tuple[int, int, int, int]:
        """Functions on the stack, their files, functions that ran, their files."""
        return (
            len(self.stack),
            len({file for file, _ in self.stack}),
            len(self.codes),
            len({code.co_filename for code in self.codes}),
        )


def is_ours(code: CodeType) -> bool:
    """Whether a function is one of the package's (and not one that dataclasses or msgspec made)."""
    return code.co_filename.startswith(SOURCE)


def stack_of(frame: FrameType | None) -> list[tuple[str, str]]:
    """The package's functions on the stack, outermost first: file, name."""
    found: list[tuple[str, str]] = []
    while frame is not None:
        if is_ours(frame.f_code):
            found.append((frame.f_code.co_filename.removeprefix(SOURCE), frame.f_code.co_qualname))
        frame = frame.f_back
    return found[::-1]


def path_of(call: Callable[[], object], statement: str, trace: list[Callable[[str], None]]) -> CallPath:
    """Run a call and note the stack when the first statement that matches a pattern begins."""
    found = CallPath()

    def note(sql: str) -> None:
        if not found.stack and re.match(statement, sql, re.IGNORECASE):
            found.stack = stack_of(sys._getframe())

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and is_ours(frame.f_code):
            found.codes.add(frame.f_code)

    trace.append(note)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        trace.remove(note)
    assert found.stack, f"no statement like {statement}"
    return found


@contextmanager
def traced() -> Iterator[list[Callable[[str], None]]]:
    """Every statement of each connection that is opened within is given to each function of this list."""
    functions: list[Callable[[str], None]] = []

    def begin(event: dict[str, str]) -> None:
        for function in functions:
            function(event["sql"])

    def hook(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, begin)

    apsw.connection_hooks.append(hook)
    try:
        yield functions
    finally:
        apsw.connection_hooks.remove(hook)


def measure(folder: str) -> dict[str, CallPath]:
    """The four paths, each warm: after other calls of its kind."""
    with traced() as trace, ef.Store(f"{folder}/log.db") as store:
        calls: dict[str, tuple[Callable[[], object], str]] = {
            "append": (lambda: store.append(CallDeposited("a", 1)), "COMMIT"),
            "decide": (lambda: store.decide(deposit, Account("a")), "COMMIT"),
            "project": (lambda: store.project(Balance), "INSERT INTO .*balance"),
            "rows": (lambda: store.rows(Balance, account="a"), "SELECT .* FROM .*balance"),
        }
        paths: dict[str, CallPath] = {}
        for name, (call, statement) in calls.items():
            for _ in range(WARM):
                store.append(CallDeposited("b", 1))  # what a page of `project` has to fold
                call()
            if name == "project":
                store.append(CallDeposited("b", 1))
            paths[name] = path_of(call, statement, trace)
    return paths


def page(paths: dict[str, CallPath]) -> str:
    """The paths as ARCHITECTURE.md shows them."""
    lines: list[str] = []
    for name, path in paths.items():
        frames, files, functions, all_files = path.figures
        lines.append(
            f"{UNTIL[name]}: {frames} functions on the stack, in {files} files ({functions} in {all_files} run).\n"
        )
        lines.append("| File | Functions |\n|---|---|")
        last = ""
        for file, function in path.stack:
            if file == last:
                lines[-1] = lines[-1].removesuffix(" |") + f", `{function}` |"
            else:
                lines.append(f"| `{file}` | `{function}` |")
            last = file
        lines.append("")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CallPath]:
    """The four paths on SQLite."""
    return measure(str(tmp_path_factory.mktemp("paths")))


@pytest.mark.parametrize("name", BOUNDS)
def test_a_call_path_is_no_longer_than_its_bound(paths: dict[str, CallPath], name: str) -> None:
    """A longer one is a reason to look at the structure, not at the bound."""
    assert all(found <= bound for found, bound in zip(paths[name].figures, BOUNDS[name], strict=True)), (
        paths[name].figures,
        paths[name].stack,
    )
