"""Reads a data set that is a pickled pandas frame, as plain columns: without pandas, and running nothing of the file.

A pickle may name any function, and loading it calls that function. Here the eleven names that a frame needs are known,
each one keeps plain values, and any other name is refused. Numbers of columns that are not requested are not converted.
Knows: the layout in which pandas pickles blocks of columns. Does not know: what the columns mean.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Sequence
from typing import IO, Any

from eventfold.demo.data.files import open_source
from eventfold.errors import InvalidInput

_CODES = {"i8": "q", "f8": "d", "b1": "b"}  # of numpy, and of `array`


class _Part:
    """An object of the pickle: the arguments and the state that it was made from."""

    arguments: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *arguments: Any) -> _Part:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Frame(_Part): ...


class _Blocks(_Part): ...


class _Block(_Part): ...


class _Buffer(_Part): ...


class _Objects(_Part): ...


class _Type(_Part): ...


class _Index(_Part): ...


_KNOWN: dict[tuple[str, str], Any] = {
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Blocks,
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.indexes.base", "_new_Index"): _Index,
    ("pandas.core.indexes.base", "Index"): _Part,
    ("pandas.core.indexes.range", "RangeIndex"): _Part,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy.core.multiarray", "_reconstruct"): _Objects,
    ("numpy", "ndarray"): _Part,
    ("numpy", "dtype"): _Type,
    ("builtins", "slice"): slice,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        known = _KNOWN.get((module_name, global_name))
        if known is None:
            raise InvalidInput(
                f"The pickled frame names {module_name}.{global_name}, which no frame of numbers and texts needs.",
                "Fetch the file again: eventfold demo fetch.",
                name=f"{module_name}.{global_name}",
            )
        return known


def read_frame(name: str, *columns: str) -> dict[str, list[Any]]:
    """Return columns of a data set's frame (default: all), as lists of int, float, bool or the objects in it.

    A missing number is a float that is not a number. Raises InvalidInput for another class, an unknown column or
    another type of numbers, and what `open_source` raises.
    """
    with open_source(name) as opened:
        return columns_of(opened, columns)


def columns_of(file: IO[bytes], columns: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return columns of the frame in an open pickle. See read_frame."""
    frame = _Reader(file).load()
    if not isinstance(frame, _Frame):
        raise InvalidInput("The pickled object is no data frame.", "Fetch the file again: eventfold demo fetch.")
    blocks, (names, _) = frame.state["_mgr"].arguments[:2]
    places: dict[str, int] = {each: place for place, each in enumerate(_flat(names.arguments[1]["data"])[0])}
    found: dict[int, tuple[_Part, int]] = {}
    for block in blocks:
        values, placement, _ = block.arguments
        held = range(*placement.indices(len(places))) if isinstance(placement, slice) else _flat(placement)[0]
        found.update({place: (values, row) for row, place in enumerate(held)})
    for each in columns:
        if each not in places:
            raise InvalidInput(f"The frame has no column {each}.", f"Name one of: {', '.join(places)}.", column=each)
    return {each: _column(*found[places[each]]) for each in columns or places}


def _column(values: _Part, row: int) -> list[Any]:
    """Return one row of a block, which is one column of the frame."""
    flat, shape, by_columns, code = _flat(values)
    rows, length = shape
    picked = flat[row::rows] if by_columns else flat[row * length : (row + 1) * length]
    return [bool(each) for each in picked] if code == "b1" else list(picked)


def _flat(values: _Part) -> tuple[Sequence[Any], tuple[int, ...], bool, str]:
    """Return the values of an array in the order of its memory, its shape, whether columns are first, and its type."""
    if isinstance(values, _Objects):
        _, shape, kind, by_columns, flat = values.state
        return flat, shape, by_columns, kind.arguments[0]
    buffer, kind, shape, order = values.arguments
    code = kind.arguments[0]
    if code not in _CODES or kind.state[1] == ">":
        raise InvalidInput(f"The frame has numbers of type {code}.", "Only i8, f8 and b1 are read.", type=code)
    flat: array[Any] = array(_CODES[code])
    flat.frombytes(bytes(buffer))
    return flat, shape, order == "F", code
