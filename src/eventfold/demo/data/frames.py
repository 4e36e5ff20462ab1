"""Reads a data set that is a pickled pandas frame, as plain columns.

Knows: pandas, which only these data sets need. Does not know: what the columns mean. A pickle may run code when it is
read: the digest of the file is compared first, so only the file that was looked at is read.
"""

from __future__ import annotations

import importlib
from typing import Any

from eventfold.demo.data.files import open_source
from eventfold.errors import MissingExtra


def read_frame(name: str, *columns: str) -> dict[str, list[Any]]:
    """Return the columns of a pickled frame by name, each as a list of Python values; `columns`: only these.

    Raises MissingExtra without pandas, and what `open_source` raises.
    """
    try:
        pandas: Any = importlib.import_module("pandas")
    except ModuleNotFoundError:
        raise MissingExtra(
            f"The data set {name!r} is a pickled pandas frame, and pandas is not installed.",
            "Run: pip install pandas.",
            extra="pandas",
        ) from None
    with open_source(name) as opened:
        frame: Any = pandas.read_pickle(opened)
    return {column: frame[column].tolist() for column in columns or frame.columns}
