"""Data sets of the examples, for tests: fetched once into the user's cache.

Where there is no network, a test that needs one is skipped by its name; where programs are required, as in continuous
integration, it fails. Knows: fetching, programs. Does not know: what is in a data set.
"""

from __future__ import annotations

import fcntl
import os

from eventfold.demo.data import cache_folder, fetch, source_path
from eventfold.errors import DataMissing
from tests.support.programs import REQUIRED, Missing


def need(*names: str) -> None:
    """Make sure that data sets are here, by fetching them if need be. One process at a time fetches."""
    absent = [name for name in names if not _is_here(name)]
    if not absent:
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / ".fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            fetch(absent)
        except DataMissing as missing:
            if os.environ.get(REQUIRED):
                raise
            raise Missing(f"the data set {missing.fields['data']} (eventfold demo fetch)") from missing


def _is_here(name: str) -> bool:
    try:
        source_path(name)
    except DataMissing:
        return False
    return True
