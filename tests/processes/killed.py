"""An application that is killed repeatedly: a process that forks one run after another.

    python -m tests.processes.killed URL LIVES SEED LONGEST

Each life opens the store, takes orders, runs the process and the effect, and is killed (SIGKILL) at a random moment.
"""

from __future__ import annotations

import os
import sys
import time

import eventfold as ef
from tests.processes.shop import OrderPlaced, Paid, Payment, mail
from tests.support.lives import run_lives


def live(url: str, life: int, begun: int) -> None:
    """One life: an order that everybody may place again, since it is placed under a key."""
    store = ef.Store(url)
    with store.run(Payment, mail):
        os.write(begun, b"!")
        store.append(OrderPlaced(f"o-{life}"), key=f"place-{life}")
        if life % 3 == 0:
            store.append(Paid(f"o-{life}"), key=f"pay-{life}")
        time.sleep(600)


def main(url: str, lives: int, seed: int, longest: float) -> None:
    """Run that many lives, one after the other. Print how many were killed."""
    with ef.Store(url) as store:  # whatever is loaded once is loaded before the first life begins
        store.run_until_idle(Payment, mail)
    print(run_lives(live, url, lives, seed, longest, early=0.2))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
