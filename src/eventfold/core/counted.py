"""Numbers with their nouns in texts for people: one event, two events.

Knows: the plural of regular nouns. Does not know: where a text is shown.
"""

from __future__ import annotations


def count_of(number: int, what: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def each_of(number: int, what: str) -> str:
    """The beginning of a sentence about all of them: `The one event`, `Each of 2 events`."""
    return f"The one {what}" if number == 1 else f"Each of {count_of(number, what)}"
