"""Text with U+0000, which PostgreSQL cannot hold: kept as two U+0001, and read back as it was.

Text without U+0000 stays as it is, unless it would be read back as something else. Knows: text and JSON as text. Does
not know: SQL, columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

NUL, ONE, TWO = "\0", "\1", "\2"
ESCAPE_SEQUENCE = re.compile("\1[\1\2]")  # what stands for another character
JSON_ESCAPE = re.compile(r"\\u000[01]|\\.")
JSON_ESCAPE_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u0001\\u000([12])")
JSON_REPLACEMENTS = {"\\u0000": "\\u0001\\u0001", "\\u0001": "\\u0001\\u0002"}


def escape(text: str) -> str:
    """A text without U+0000."""
    if NUL not in text and not (ONE in text and ESCAPE_SEQUENCE.search(text)):
        return text
    return text.replace(ONE, ONE + TWO).replace(NUL, ONE + ONE)


def unescape(text: str) -> str:
    """What `escaped` was given."""
    return ESCAPE_SEQUENCE.sub(lambda found: NUL if found[0][1] == ONE else ONE, text) if ONE in text else text


def escape_json(text: str) -> str:
    """The same for JSON, which has such characters as escape sequences."""
    if "\\u0000" not in text and "\\u0001" not in text:
        return text
    return JSON_ESCAPE.sub(lambda found: JSON_REPLACEMENTS.get(found[0], found[0]), text)


def unescape_json(text: str) -> str:
    """What `escaped_json` was given, as JSON."""
    if "\\u0001" not in text:
        return text
    return JSON_ESCAPE_PAIR.sub(lambda found: f"{found[1]}\\u0000" if found[2] == "1" else f"{found[1]}\\u0001", text)


def may_need_escaping(kind: str, values: Sequence[Any]) -> bool:
    """Whether any text of a column may have to be escaped, or read back: looked at all at once, which is cheap."""
    together = "".join([value for value in values if value.__class__ is str])
    return "\\u000" in together if kind == "json" else NUL in together or ONE in together
