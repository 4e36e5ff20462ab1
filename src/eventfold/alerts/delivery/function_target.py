"""A target that is a function of the user: for every service that has no target of its own.

Knows: that it takes one message. Does not know: what it does.
"""

from __future__ import annotations

from collections.abc import Callable

from eventfold.alerts.delivery.message import Message


class Function:
    """A function that sends a message, and raises an exception if that failed."""

    secrets: tuple[str, ...] = ()

    def __init__(self, function: Callable[[Message], object]) -> None:
        self._function = function

    @property
    def description(self) -> str:
        """The function's name."""
        return f"the function {getattr(self._function, '__qualname__', type(self._function).__name__)}"

    def send(self, message: Message) -> None:
        """Call the function."""
        self._function(message)
