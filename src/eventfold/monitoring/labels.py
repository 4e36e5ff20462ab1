"""Values of labels, bounded: the first ones are kept, all others together are `other`.

Each different value of a label is a series of its own in Prometheus, so that a program that makes up types would fill
its memory. Knows: texts. Does not know: metrics.
"""

from __future__ import annotations

MAX_VALUES, OTHER = 200, "other"
MAX_LENGTH = 255  # characters


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
            found = self._known[value] = value[:MAX_LENGTH].encode("utf-8", "replace").decode()
        return found
