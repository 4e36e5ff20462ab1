# pyright: basic, reportMissingTypeStubs=false
# The library for tables has no types.
"""Rows of features as Arrow and Parquet, for any program that trains models.

Knows: pyarrow, numpy. Does not know: the log, any library of machine learning.

`pip install "eventfold[arrow]"`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet

from examples.fields.delays.features import COLUMNS, Features


def table(features: Features, rows: Sequence[int], cursor: str) -> pyarrow.Table:
    """Rows as an Arrow table, whose metadata say up to which cursor of the log they were known, and their digest."""
    chosen = numpy.asarray(rows, dtype=numpy.int64)
    columns: dict[str, Any] = {
        "flight": [features.flights[row] for row in rows],
        "departs": pyarrow.array([features.departs[row] for row in rows], pyarrow.timestamp("us", tz="UTC")),
        "position": numpy.frombuffer(features.positions, dtype=numpy.int64)[chosen],
    }
    # What was unknown is NaN in a model's matrix, and null here.
    columns |= {name: pyarrow.array(column_of(features, name)[chosen], from_pandas=True) for name in COLUMNS}
    made = pyarrow.table(columns)
    return made.replace_schema_metadata({"cursor": cursor, "digest": features.digest(list(rows))})


def export(features: Features, rows: Sequence[int], cursor: str, path: Path) -> Any:
    """Write rows into a Parquet file, for any program that trains models; return them as an Arrow table."""
    made = table(features, rows, cursor)
    pyarrow.parquet.write_table(made, path)
    pyarrow.default_memory_pool().release_unused()  # the columns of another table would not fit into it
    return made


def column_of(features: Features, name: str) -> Any:
    """A column as numpy's array, without a copy."""
    return numpy.frombuffer(features.columns[name], dtype=numpy.float32)
