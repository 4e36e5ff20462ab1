"""Escaping of U+0000, which PostgreSQL's text types cannot store: it is stored as two U+0001 and restored on reading.

Text without U+0000 is stored unchanged, unless unescaping would change it: its U+0001 are escaped then. Knows: text and
JSON as text. Does not know: SQL, columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

NUL, ONE, TWO = "\0", "\1", "\2"
ESCAPE_SEQUENCE = re.compile("\1[\1\2]")  # stands for U+0000 or U+0001
JSON_ESCAPE = re.compile(r"\\u000[01]|\\.")
JSON_ESCAPE_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u0001\\u000([12])")
JSON_REPLACEMENTS = {"\\u0000": "\\u0001\\u0001", "\\u0001": "\\u0001\\u0002"}


def escape(text: str) -> str:
    """Return the text escaped, without U+0000."""
    if NUL not in text and not (ONE in text and ESCAPE_SEQUENCE.search(text)):
        return text
    return text.replace(ONE, ONE + TWO).replace(NUL, ONE + ONE)


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    return ESCAPE_SEQUENCE.sub(lambda found: NUL if found[0][1] == ONE else ONE, text) if ONE in text else text


def escape_json(text: str) -> str:
    """Escape JSON, in which U+0000 and U+0001 are written as escape sequences."""
    if "\\u0000" not in text and "\\u0001" not in text:
        return text
    return JSON_ESCAPE.sub(lambda found: JSON_REPLACEMENTS.get(found[0], found[0]), text)


def unescape_json(text: str) -> str:
    """Return the JSON that `escape_json` was given."""
    if "\\u0001" not in text:
        return text
    return JSON_ESCAPE_PAIR.sub(lambda found: f"{found[1]}\\u0000" if found[2] == "1" else f"{found[1]}\\u0001", text)


def may_need_escaping(kind: str, values: Sequence[Any]) -> bool:
    """Whether any value of a column may need escaping or unescaping. Checks all values at once, which is cheap."""
    together = "".join([value for value in values if value.__class__ is str])
    return "\\u000" in together if kind == "json" else NUL in together or ONE in together
