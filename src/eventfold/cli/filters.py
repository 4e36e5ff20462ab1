"""Room: which events a command means: `--type`, `--tag` and `--where` as one query.

    --type A --type B --tag x:1 --tag y:2      any of the types, all of the tags
    --where "type=A,B tag=x:1 tag=y:2"         the same as one alternative; each further --where is another

Knows: the little language of `--where`. Does not know: stores, terminals.
"""

from __future__ import annotations

import shlex

from eventfold.core.query import Query
from eventfold.errors import InvalidQuery

HOW = 'Write type=A,B and tag=x:1, separated by spaces: --where "type=Opened,Closed tag=account:a-1".'


def query_of(types: list[str] | None, tags: list[str] | None, where: list[str] | None) -> Query:
    """The events meant: --type with --tag, or else any --where; without all three, everything. Raises InvalidQuery."""
    queries = [alternative(text) for text in where or ()]
    if types or tags:
        queries.insert(0, Query.of(types or (), tags or ()))
    if not queries:
        return Query()
    query = queries[0]
    for each in queries[1:]:
        query |= each
    return query


def alternative(text: str) -> Query:
    """One `--where`. Raises InvalidQuery if it means nothing."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidQuery(f"--where {text!r} cannot be read: {str(error).lower()}.", HOW) from error
    types: list[str] = []
    tags: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key not in ("type", "tag"):
            raise InvalidQuery(f"--where {text!r} has {word!r}, which is neither type=… nor tag=….", HOW)
        if key == "tag":
            tags.append(value)
        else:
            types.extend(value.split(","))
    if not types and not tags:
        raise InvalidQuery("An empty --where means nothing.", HOW)
    return Query.of(types, tags)
