"""A program that is killed repeatedly: a process that forks one life after another, each ended by SIGKILL.

Knows: processes. Does not know: what a life does.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable

Live = Callable[[str, int, int], None]  # the address of a store, the number of the life, a pipe to write to once begun


def run_lives(live: Live, url: str, lives: int, seed: int, longest: float, *, early: float = 0.0) -> int:
    """Run that many lives, one after the other, and return how many were killed.

    Each is killed at a random moment, at most `longest` seconds after it has begun; a share of them, `early`, perhaps
    while it begins.
    """
    chance, killed = random.Random(seed), 0
    for life in range(lives):
        begun, begins = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(url, life, begins)
            finally:
                os._exit(1)
        if chance.random() >= early:
            select.select([begun], [], [], 60.0)  # however busy the machine is
        time.sleep(chance.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        os.close(begun)
        os.close(begins)
    return killed
