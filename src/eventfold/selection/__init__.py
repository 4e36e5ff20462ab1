"""Rows of read models by filter, order and page: the values that say what is wanted, and the answer in memory.

Knows: columns, kinds of values. Does not know: databases, how rows are folded.
"""

from eventfold.selection.column import ComparableColumn, col
from eventfold.selection.filters import Filter
from eventfold.selection.rows import Rows
from eventfold.selection.selection import Selection
from eventfold.selection.source import Explanation

__all__ = ["ComparableColumn", "Explanation", "Filter", "Rows", "Selection", "col"]
