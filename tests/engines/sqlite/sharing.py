"""A process in which a second SQLite library opens and closes the file of a store that threads append to and read.

Usage: python -m tests.engines.sqlite.sharing PATH NAME SECONDS LIBRARY
Prints the id of each acknowledged event at once.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable

import eventfold as ef
from eventfold.engines.sqlite import checkpoint
from tests.engines.sqlite.noted import noted

SQL = "SELECT position, id FROM event ORDER BY position DESC LIMIT 20"
CHECKPOINT_PAGES = 40  # so few that every process often restarts the write-ahead log


def main(path: str, name: str, seconds: float, library: str) -> None:
    """Append, read, and let the second library open and close, each in a thread of its own, for `seconds`."""
    checkpoint.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    store = ef.Store(path, durability="normal")
    stop = threading.Event()
    failed: list[BaseException] = []

    def until_stopped(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001  (raised again by the main thread)
                failed.append(error)
                stop.set()

        return run

    def append() -> None:
        print(store.append(noted(1, name)).event_ids[0], flush=True)

    def read() -> None:
        head = store.head()
        positions = [recorded.position for recorded in store.read()]
        assert positions == list(range(1, len(positions) + 1)) and len(positions) >= head
        of_name = ef.Query.of(tags=f"who:{name}")
        assert store.count(of_name) <= len(list(store.read(of_name)))

    def second_library() -> None:
        connection = sqlite3.connect(path)
        try:
            if library == "pandas":
                import pandas

                pandas.read_sql(SQL, connection)
            else:
                connection.execute(SQL).fetchall()
        except Exception as error:  # its reads in this process may mix two moments
            if "malformed" not in str(error):
                raise
        finally:
            connection.close()

    threads = [threading.Thread(target=until_stopped(each)) for each in (append, read, second_library, second_library)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
