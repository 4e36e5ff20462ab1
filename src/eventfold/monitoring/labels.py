"""Values of labels, bounded: the first ones are kept, all others together are `other`.

Each different value of a label is a series of its own in Prometheus, so that a program that makes up types would fill
its memory. Knows: texts. Does not know: metrics.
"""

from __future__ import annotations

from eventfold.errors import InvalidInput

MAX_VALUES, OTHER = 200, "other"
MAX_LENGTH = 255  # characters


def shown(value: str) -> str:
    """Return a value as it is shown: shortened to 255 characters, without those that UTF-8 does not have."""
    return value[:MAX_LENGTH].encode("utf-8", "replace").decode()


def check_name(name: object) -> str:
    """Return the name of a store, which is a label of all its metrics. Raises InvalidInput if it cannot be one."""
    if not isinstance(name, str) or len(name) > MAX_LENGTH or shown(name) != name:
        raise InvalidInput(
            f"{ascii(name)[:80]} cannot be the name of a store in its metrics.",
            f"Give a text of at most {MAX_LENGTH} characters, in UTF-8.",
        )
    return name


class LabelValues:
    """The values of one label. Safe under threads: two values that come at the same time may both be kept."""

    def __init__(self, most: int = MAX_VALUES) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def of(self, value: str) -> str:
        """Return the value to show: itself, shortened to 255 characters, or `other` if there are too many."""
        found = self._known.get(value)
        if found is None:
            if len(self._known) >= self._most:
                return OTHER
            found = self._known[value] = shown(value)
        return found
