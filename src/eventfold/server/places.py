"""Errors without the places of stores: the paths of files and the addresses of databases are for the log only.

What looks like an address and stands in the request itself is not replaced, unless it is that of a store of the server:
a request could ask so whether it is.
Knows: which fields of an error name a place, what an address looks like. Does not know: HTTP, callers.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.errors import EventfoldError
from eventfold.ports.engine_messages import ErrorMessage, OutcomeMessage, outcome_message
from eventfold.ports.messages import Outcome

FIELDS = ("path", "server", "replica", "where", "address", "folder", "store_address")
SHOWN = "<store>"
LINE_EVERY_S = 1.0
_ADDRESS = re.compile(r"\b(?:sqlite|duckdb|file|postgres|postgresql):[/\\\w][^\s'\"]*")

logger = logging.getLogger("eventfold.server")


class Shown(msgspec.Struct, frozen=True):
    """An error as clients see it."""

    what: str
    remedy: str
    fields: dict[str, Any]


class _Lines:
    """When the log may have the next line: clients could fill a disk otherwise."""

    next = 0.0


class Asked(msgspec.Struct, frozen=True):
    """What an error may quote: the text of the request, read when it is needed. `own`: addresses that it may not."""

    text: Callable[[], str] = str
    own: Sequence[str] = ()

    def contains(self, address: str) -> bool:
        """Whether the address is the request's own."""
        if any(address in each or each in address for each in self.own):
            return False
        return address.rstrip(".,;:)]}") in self.text()


def without_places(error: EventfoldError, asked: Asked = Asked()) -> Shown:  # noqa: B008 - it is frozen
    """Return an error with `<store>` in place of each path and address. What was left out is logged."""
    places = [value for name in FIELDS if isinstance(value := error.fields.get(name), str) and value]
    paths = [value.removeprefix("sqlite:") for value in places]
    folders = [f"{folder}{os.sep}" for path in paths if len(folder := os.path.dirname(path)) > 1]
    names = sorted({*places, *paths, *folders, *(each.rstrip(os.sep) for each in folders)}, key=len, reverse=True)

    def hidden(text: str) -> str:
        for name in names:
            text = re.sub(rf"(?<![\w./-]){re.escape(name)}", SHOWN, text)
        return _ADDRESS.sub(lambda found: found[0] if asked.contains(found[0]) else SHOWN, text)

    fields = {name: value for name, value in error.fields.items() if name not in FIELDS}
    fields = {name: hidden(value) if isinstance(value, str) else value for name, value in fields.items()}
    shown = Shown(hidden(error.what), hidden(error.remedy), fields)
    if shown.what != error.what and time.monotonic() >= _Lines.next:
        _Lines.next = time.monotonic() + LINE_EVERY_S
        logger.warning("A call was answered with an error about: %s", error.what)
    return shown


def outcome_without_places(outcome: Outcome) -> OutcomeMessage:
    """Return the outcome of an append as a message to a remote engine, an error as `without_places` shows it."""
    message = outcome_message(outcome)
    if message.error is None or not isinstance(outcome, EventfoldError):
        return message
    shown = without_places(outcome)
    fields = {name: shown.fields[name] for name in message.error.fields if name in shown.fields}
    return OutcomeMessage(error=ErrorMessage(message.error.code, shown.what, shown.remedy, fields))
