"""A coroutine run in a thread of its own while its caller does something else.

Knows: threads. Does not know: what is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from eventfold.concurrency.run import run

T = TypeVar("T")


def start_in_thread(work: Coroutine[Any, Any, T]) -> Callable[[], T]:
    """Begin it now; what is returned waits for it and gives what it gave, or raises what it raised."""
    results: list[T] = []
    errors: list[BaseException] = []

    def do() -> None:
        try:
            results.append(run(work))
        except BaseException as error:  # raised where it is waited for; a thread has nobody else to tell
            errors.append(error)

    thread = threading.Thread(target=do, name="eventfold-ahead", daemon=True)
    thread.start()

    def result() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    return result
