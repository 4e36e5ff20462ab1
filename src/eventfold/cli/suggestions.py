"""Suggestions for types and tags that no event has: the most similar name in the store.

Knows: similarity of names. Does not know: how events are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from eventfold.cli.exit_codes import print_note
from eventfold.core.query import Query
from eventfold.store import Store

MIN_SIMILARITY = 0.6  # the ratio of difflib: up to about half a word may differ
MAX_TAG_KEYS = 200  # keys of tags that are compared
MAX_TAGS = 1_000
LAST_CHARACTER = "\U0010ffff"


def print_suggestions(store: Store, query: Query) -> None:
    """Print on standard error the types and tags of a query that no event has, with the most similar ones."""
    for line in suggestions(store, query):
        print_note(line)


def suggestions(store: Store, query: Query) -> Iterator[str]:
    """A sentence for each type and tag of a query that no event has."""
    types = dict.fromkeys(name for item in query.items for name in item.types)
    tags = dict.fromkeys(tag for item in query.items for tag in item.tags)
    known = [each.type for each in store.types()] if types else []
    for name in types:
        if name not in known:
            yield _sentence(f"No event has the type {name}.", closest_name(name, known))
    for tag in tags:
        if next(store.read(Query.of(tags=tag), raw=True, limit=1), None) is None:
            yield _sentence(f"No event has the tag {tag}.", _closest_tag(store, tag))


def _sentence(what: str, meant: str | None) -> str:
    return what if meant is None else f"{what} Did you mean {meant}?"


def closest_name(name: str, known: list[str]) -> str | None:
    """The most similar name, ignoring case."""
    folded = {each.casefold(): each for each in reversed(known)}
    return next((folded[each] for each in get_close_matches(name.casefold(), list(folded), 1, MIN_SIMILARITY)), None)


def _closest_tag(store: Store, tag: str) -> str | None:
    """The most similar tag: with a colon after its key, with another key, or with another value."""
    key, colon, value = tag.partition(":")
    if not colon:
        key, _, value = tag.partition("=")
    keys = _tag_keys(store)
    meant = key if key in keys else closest_name(key, keys)
    if meant is None:
        return None
    if value and store.tag(f"{meant}:{value}").count:
        return f"{meant}:{value}"
    some = store.tag_names(f"{meant}:{value[:1]}", limit=MAX_TAGS) or store.tag_names(f"{meant}:", limit=MAX_TAGS)
    values = [each.partition(":")[2] for each in some]
    near = closest_name(value, values) if value else None
    return f"{meant}:{near}" if near is not None else f"{meant}:… (as {meant}:{values[0]})" if values else None


def _tag_keys(store: Store) -> list[str]:
    """The keys of tags, by a seek from each key to the next."""
    keys: list[str] = []
    after = ""
    while len(keys) < MAX_TAG_KEYS and (found := store.tag_names(after=after, limit=1)):
        key = found[0].partition(":")[0]
        keys.append(key)
        after = f"{key}:{LAST_CHARACTER}" if ":" in found[0] else found[0]
    return keys
