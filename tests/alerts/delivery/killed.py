"""A runner of deliveries that is killed: `python -m tests.alerts.delivery.killed STORE URL`."""

from __future__ import annotations

import sys
import time

import eventfold as ef
from eventfold.alerts import delivery
from tests.alerts.delivery.receiving import SECRET


def main(store: str, url: str) -> None:
    """Deliver until the end."""
    with ef.Store(store) as opened, opened.run(pager(url)):
        print("runs", flush=True)
        time.sleep(600)


def pager(url: str) -> delivery.Delivery:
    """The target that all runners have."""
    return delivery.webhook(url, secret=SECRET, name="pager", group=0, group_page=0, first_delay=0.1, max_delay=0.2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
