"""Arrays as PostgreSQL writes them, `{1,NULL,"a b"}`: text to lists, and lists to text.

Knows: the text form. Does not know: types of elements.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

TOKEN = re.compile(r'\s*(?:([{}])|"((?:[^"\\]|\\.)*)"|([^{},"]+))\s*(,?)')
PLAIN = re.compile(r"[^{},\"\\\s]+")


def parse_array(text: str, read: Callable[[str], Any]) -> list[Any]:
    """Return a list, nested as the array is. Raises ValueError, also for an array whose first index is not 1."""
    if text.startswith("["):
        raise ValueError("its first index is not 1")
    stack: list[list[Any]] = []
    place = 0
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None:
            raise ValueError("it is no array")
        place = found.end()
        bracket, quoted, plain, _ = found.groups()
        if bracket == "{":
            stack.append([])
        elif bracket == "}":
            done = stack.pop() if stack else None
            if done is None:
                raise ValueError("it is no array")
            if not stack:
                if place != len(text):
                    raise ValueError("something follows the array")
                return done
            stack[-1].append(done)
        elif not stack:
            raise ValueError("it is no array")
        elif plain is not None and plain.strip().upper() == "NULL":
            stack[-1].append(None)
        else:
            stack[-1].append(read(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if plain is None else plain.strip()))
    raise ValueError("it is no array")


def format_array(values: list[Any], write: Callable[[Any], str]) -> str:
    """Return a list as the text of an array."""
    parts: list[str] = []
    for each in values:
        if isinstance(each, list):
            parts.append(format_array(cast("list[Any]", each), write))
        elif each is None:
            parts.append("NULL")
        else:
            text = write(each)
            is_plain = PLAIN.fullmatch(text) is not None and text.upper() != "NULL"
            parts.append(text if is_plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"
