"""Decoders of JSON for classes, compiled by one thread at a time.

Two threads that compile one class at the same moment may end the process (msgspec 0.22: what it learns of a class
is seen by others before it is complete). Once a class was compiled, any number may use it.
Knows: msgspec. Does not know: what is decoded, and why.
"""

from __future__ import annotations

from typing import Any, TypeVar
from weakref import WeakSet

import msgspec

from eventfold.core.json_values import derived_value
from eventfold.core.mutex import Mutex

T = TypeVar("T")
_compiling = Mutex()
_known: WeakSet[type] = WeakSet()


def decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of a class, or of any type. Raises what msgspec raises: TypeError, NameError."""
    return _compiling.run(_compile, kind)


def decode(data: bytes | str, cls: type[T]) -> T:
    """A value of the class from its JSON. Raises msgspec's ValueErrors."""
    if cls not in _known:
        decoder_of(cls)
        _known.add(cls)
    return msgspec.json.decode(data, type=cls, dec_hook=derived_value)


def _compile(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=derived_value)
