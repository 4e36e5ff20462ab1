"""What the examples of the fields share: loading with ids from the source, contention, comparison, report, plot.

Knows: the files of this folder. Does not know: any example. The examples are in `examples/fields/` of the repository,
and `eventfold.demo.shop` and `eventfold.demo.exchange`, which a wheel has too.
"""

from eventfold.demo.fields.comparison import Comparison, Mismatch, connect, connect_file
from eventfold.demo.fields.contention import TASKS, Contention, contend
from eventfold.demo.fields.load_count import LoadCount, id_from, write
from eventfold.demo.fields.planted import change_byte, damage_of, forge
from eventfold.demo.fields.run import Checked, main

__all__ = [
    "TASKS",
    "Checked",
    "Comparison",
    "Contention",
    "LoadCount",
    "Mismatch",
    "change_byte",
    "connect",
    "connect_file",
    "contend",
    "damage_of",
    "forge",
    "id_from",
    "main",
    "write",
]
