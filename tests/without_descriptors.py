"""Open a store where this process has no descriptor left, and print what the error says: `… ADDRESS`.

It runs in a process of its own: in pytest's process, closing a store of an earlier test would free a descriptor.
"""

from __future__ import annotations

import os
import resource
import sys

import eventfold as ef
from eventfold.errors import StoreUnavailable

LIMIT = 400  # descriptors


def main(address: str) -> str:
    """The type of the error and its two sentences; that there was none."""
    with ef.Store(address):  # what is imported when it is first used would lack descriptors itself
        pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken: list[int] = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        ef.Store(address)
    except StoreUnavailable as refused:
        return f"{type(refused).__name__}: {refused}"
    finally:
        for each in taken:
            os.close(each)
    return "no error"


if __name__ == "__main__":
    print(main(sys.argv[1]))
