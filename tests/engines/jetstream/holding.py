"""A process that holds the writers' lease and appends, until it is killed: ADDRESS INDEX.

It prints "holding", then the id of each event that was acknowledged. Knows: the store. Does not know: pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.engines.jetstream.writers import Booked, let_hold, opened


def main() -> None:
    """Append until the process ends."""
    url, index = sys.argv[1], Path(sys.argv[2])
    with opened(url, index.parent, index.stem) as store:
        let_hold(store)
        print("holding", flush=True)
        while True:
            print(store.append(Booked("all", "holder")).event_ids[0], flush=True)


if __name__ == "__main__":
    main()
