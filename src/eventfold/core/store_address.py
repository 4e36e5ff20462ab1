"""The address of a store in the commands that messages name: `eventfold projections rebuild STORE NAME`.

A message is written where the address is not known, with the word STORE in its commands. Where the address is known,
it is put in that place, ready to be pasted into a shell.
Knows: how an address is quoted. Does not know: engines, commands, who reads a message.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eventfold.errors import EventfoldError

C = TypeVar("C", bound=type)

FIELD = "store_address"  # of an error in whose message the address was put
_COMMAND = re.compile(r"\b(eventfold ([a-z]+)(?: [a-z]+)?) STORE(?![A-Za-z])")
_WITH_TARGET = frozenset(("projections", "processes", "run"))  # commands that take --target


class StoreAddress(msgspec.Struct, frozen=True):
    """`store`: its address without secrets; "" if a shell cannot open it. `target`: that of its read models, or ""."""

    store: str = ""
    target: str = ""

    def in_text(self, text: str) -> str:
        """Return a text with the address in place of the word STORE in its commands."""
        if not self.store or " STORE" not in text:
            return text
        store, target = shlex.quote(self.store), f" --target {shlex.quote(self.target)}" if self.target else ""
        return _COMMAND.sub(lambda found: f"{found[1]} {store}{target if found[2] in _WITH_TARGET else ''}", text)

    def in_error(self, error: EventfoldError) -> None:
        """Put the address into the message of an error, in place of the word STORE in its commands."""
        what, remedy = self.in_text(error.what), self.in_text(error.remedy)
        if (what, remedy) != (error.what, error.remedy):
            error.what, error.remedy = what, remedy
            error.args = (f"{what} {remedy}", *error.args[1:])
            error.fields = error.fields | {FIELD: self.store}


def store_address(store: object, target: object, hide: Callable[[str], str]) -> StoreAddress:
    """Return the address of a store and of the target that it was opened with. `hide` leaves secrets out of a text."""

    def shown(address: object) -> str:
        text = str(address) if isinstance(address, str | Path) else ""
        return "" if text.startswith(("memory:", ":memory:")) else hide(text)

    return StoreAddress(shown(store), shown(target))


def names_store(address_of: Callable[[Any], StoreAddress]) -> Callable[[C], C]:
    """Return a class decorator: errors of the public methods name the store. `address_of` is called with the object."""

    def named(method: Any) -> Any:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except EventfoldError as error:
                address_of(self).in_error(error)
                raise

        return call

    def decorate(cls: C) -> C:
        for name, member in list(vars(cls).items()):
            if not name.startswith("_") and callable(member) and not isinstance(member, staticmethod | classmethod):
                setattr(cls, name, named(member))
        return cls

    return decorate
