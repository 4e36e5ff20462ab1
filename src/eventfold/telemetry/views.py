"""Views of a store: the same log and read models, as an instance of another class.

Knows: that a store keeps all it has as attributes. Does not know: what these are.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

T = TypeVar("T")


def same_store(store: object, cls: type[T]) -> T:
    """Return the same store as an instance of a class, with the attributes of `store`."""
    view = object.__new__(cls)
    for name, value in vars(store).items():  # one by one: attributes of a dict that is updated are slower to read
        object.__setattr__(view, name, value)
    return view


def traced_class(plain: type[Any], traced: type[T]) -> type[T]:
    """Return a class with the methods of `traced` that is also a `plain`, the class of a store.

    The methods of a user's class come first, and call those of `traced` by `super()`. Those of a measured store come
    last: it measures what the spans surround.
    """
    if plain in traced.__bases__:
        return traced
    bases = (traced, plain) if is_measured(plain) else (plain, traced)
    return cast("type[T]", type(f"Traced{plain.__name__}", bases, {}))


def is_measured(plain: type[Any]) -> bool:
    """Whether the stores of a class are measured (the package monitoring does)."""
    return hasattr(plain, "timing")
