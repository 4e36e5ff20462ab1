"""How the last word of a filter may go on: keys, types, and tags, by prefix.

Knows: the keys, where a word begins. Does not know: where the names come from.
"""

from __future__ import annotations

import re

import msgspec

from eventfold.search.grammar import MAX_CHARACTERS
from eventfold.search.keys import KEYS, METADATA, PATHS, STATES
from eventfold.search.names import Names

_LAST = re.compile(r"""(?P<lead>[-(]*)(?P<word>(?:[^\s"()]|"(?:[^"\\]|\\.)*(?:"|$))*)$""", re.DOTALL)
_LAST_VALUE = re.compile(r"""(?P<before>[^:=<>~!]+(?::|!=|=)(?:.*,)?)(?P<value>[^,]*)$""", re.DOTALL)
_MOMENTS = ("1h", "24h", "7d", "30d")
_NEEDS_QUOTES = re.compile(r"""[\s",()*]|\.\.|^$""")


class Completion(msgspec.Struct, frozen=True):
    """A way to go on: the `text` that stands for the last word, from character `at` (from 0) on, and what it means."""

    text: str
    at: int
    meaning: str


async def complete(names: Names, text: str, limit: int = 20) -> list[Completion]:
    """Return at most `limit` ways in which the last word of a filter may go on, keys before names."""
    if len(text) > MAX_CHARACTERS or limit < 1:
        return []
    found = _LAST.search(text, _start_of_last_word(text))
    if found is None:
        return []
    word, at = found["word"], found.start("word")
    clause = _LAST_VALUE.match(word)
    if clause is None:
        return await _keys(names, word, at, limit)
    before, value = clause["before"], clause["value"].lstrip('"').replace('\\"', '"')
    key = re.split(r"[:=!]", before, maxsplit=1)[0]
    return [
        Completion(f"{before}{_quoted(each)}", at, meaning) for each, meaning in await _values(names, key, value, limit)
    ]


def _start_of_last_word(text: str) -> int:
    """Where the last word begins: behind the last blank or parenthesis that stands in no quotes."""
    start, is_quoted, is_escaped = 0, False, False
    for at, character in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted and character == "\\":
            is_escaped = True
        elif character == '"':
            is_quoted = not is_quoted
        elif not is_quoted and (character.isspace() or character in "()"):
            start = at + 1
    return start


async def _keys(names: Names, word: str, at: int, limit: int) -> list[Completion]:
    found = [
        Completion(f"{key.name}{'.' if key.name in PATHS else ':'}", at, key.meaning)
        for key in KEYS.values()
        if key.name.startswith(word) and key.name != word
    ]
    if len(found) < limit and word.isprintable():
        keys = await names.tag_keys(word, limit - len(found))
        found += [Completion(key, at, "a key of tags") for key in keys if key.endswith(":")]
        found += [Completion(f"tag:{_quoted(key)}", at, "a tag") for key in keys if not key.endswith(":")]
    return found[:limit]


async def _values(names: Names, key: str, value: str, limit: int) -> list[tuple[str, str]]:
    if not value.isprintable():
        return []
    match key:
        case "type":
            return [(each, "a type") for each in await names.types() if each.startswith(value)][:limit]
        case "tag":
            return [(each, "a tag") for each in await names.tags(value, limit)]
        case "is":
            return [(each, "") for each in STATES if each.startswith(value)][:limit]
        case "since" | "until" | "occurred":
            return [(each, "ago") for each in _MOMENTS if each.startswith(value)][:limit]
        case "has":
            known = [*METADATA, "occurred"]
            keys = [each.removesuffix(":") for each in await names.tag_keys(value, limit)]
            return [(each, "") for each in [*known, *keys] if each.startswith(value)][:limit]
        case _ if key in KEYS:
            return []
        case _:
            return [(each[len(key) + 1 :], "a tag") for each in await names.tags(f"{key}:{value}", limit)]


def _quoted(text: str) -> str:
    if _NEEDS_QUOTES.search(text) is None:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
