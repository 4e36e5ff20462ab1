"""An application with alerts that is killed repeatedly: a process that forks one run after another.

    python -m tests.alerts.killed URL LIVES SEED LONGEST

Each life opens the store, appends declined payments and runs the rules, and is killed (SIGKILL) at a random moment. In
some lives it is killed at a certain point instead: after the facts of a page are appended, before its rows are stored.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import eventfold as ef
from eventfold.alerts.episode_log import EpisodeLog
from tests.alerts.rules import CardTesting, PaymentDeclined, QuietCard
from tests.support.lives import run_lives


def die_after_facts() -> None:
    """Let the first append of facts be the last thing that this process does."""
    append = EpisodeLog.append

    async def append_and_die(self: EpisodeLog, *arguments: Any, **keywords: Any) -> None:
        await append(self, *arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    EpisodeLog.append = append_and_die


def live(url: str, life: int, begun: int) -> None:
    """One life: four declined payments of a card, appended under keys, so that each exists once."""
    store = ef.Store(url)
    if life % 5 == 0:
        die_after_facts()
    with store.run(CardTesting, QuietCard):
        os.write(begun, b"!")
        for number in range(4):
            store.append(PaymentDeclined(f"c-{life}"), key=f"decline-{life}-{number}")
        time.sleep(600)


def main(url: str, lives: int, seed: int, longest: float) -> None:
    """Run that many lives, one after the other. Print how many were killed."""
    with ef.Store(url) as store:  # whatever is loaded once is loaded before the first life begins
        store.run_until_idle(CardTesting, QuietCard)
    print(run_lives(live, url, lives, seed, longest))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
