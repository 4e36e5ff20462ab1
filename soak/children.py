"""Forked children: started from a process that has imported everything, ended by their process ids.

Knows: fork, signals, exit codes. Does not know: what children do.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

END_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def fork(folder: Path, function: Callable[..., object], *arguments: Any, name: str = "child") -> int:
    """Call the function in a child, whose errors go to a file in the folder. The child ends with its parent."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        gc.freeze()
        ctypes.CDLL(None).prctl(END_WITH_PARENT, int(signal.SIGKILL))
        if os.getppid() not in (parent, 0):  # 0: the parent is outside of the process namespace
            os._exit(1)
        errors = os.open(folder / f"{name}-{os.getpid()}.stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(errors, 2)
        faulthandler.register(signal.SIGUSR1, file=2)  # the schedule makes hung rounds print their stacks
        function(*arguments)
        code = 0
    except BaseException:  # noqa: BLE001 - a child reports everything by its exit code and its file
        traceback.print_exc()
    finally:
        os._exit(code)


def kill(pids: Iterable[int]) -> int:
    """Send kill -9 to all of them at once. Returns how many were still running."""
    chosen = list(pids)
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sum(ended_by_signal(pid) for pid in chosen)


def ended_by_signal(pid: int) -> bool:
    """Wait for a child. Returns whether a signal ended it."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return False
    return os.WIFSIGNALED(status)


def wait(pids: Iterable[int], seconds: float) -> list[int]:
    """Wait for children to end by themselves. Returns those that failed, and those killed after the time limit."""
    left, failed = set(pids), list[int]()
    ends = time.monotonic() + seconds
    while left and time.monotonic() < ends:
        for pid in tuple(left):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                left.discard(pid)
                if status:
                    failed.append(pid)
        time.sleep(0.005)
    for pid in left:
        os.kill(pid, signal.SIGUSR1)  # it prints its stack
    if left:
        time.sleep(0.5)
    kill(left)
    return [*failed, *left]


def running(pid: int) -> bool:
    """Return whether a child still runs; one that has ended is reaped."""
    found, _ = os.waitpid(pid, os.WNOHANG)
    return not found
