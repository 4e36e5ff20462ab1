"""Rows of an HTTP endpoint that answers with JSON: a list of objects, or one object a line.

Knows: HTTP, JSON. Does not know: what is compared.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from http.client import HTTPException
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec

from eventfold.errors import InvalidInput, SourceUnavailable
from eventfold.reconcile.measures import Theirs
from eventfold.reconcile.sources import Row, shown, unreadable
from eventfold.reconcile.values import MISSING, at_path

MAX_JSON_BYTES = 256 << 20  # of an answer, which is held in memory
LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines")
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to go elsewhere: the headers may have a credential, which is for the given address only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Return no request."""


def json_rows(theirs: Theirs) -> Iterator[Row]:
    """Yield the objects of the answer. Raises SourceUnavailable, InvalidInput."""
    where = shown(theirs.address)
    _check(theirs, where)
    request = urllib.request.Request(theirs.address, headers={"Accept": "application/json", **theirs.headers})  # noqa: S310
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=theirs.timeout) as answer:
            body, is_lines = answer.read(MAX_JSON_BYTES + 1), answer.headers.get_content_type() in LINES
    except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise unreadable(where, error, _secrets_of(theirs)) from None
    if len(body) > MAX_JSON_BYTES:
        raise SourceUnavailable(
            f"The answer of {where} is larger than {MAX_JSON_BYTES >> 20} MiB.", "Let it answer with totals by key."
        )
    try:
        found = [_decode(line) for line in body.splitlines() if line.strip()] if is_lines else _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceUnavailable(f"The answer of {where} is not JSON: {error}.", "Check the address.") from error
    for row in _list_at(found, theirs.items):
        if not isinstance(row, dict):
            raise InvalidInput(f"The answer of {where} has {str(row)[:40]!r} in its list.", "It has to have objects.")
        yield cast("dict[str, Any]", row)


def _check(theirs: Theirs, where: str) -> None:
    """Raise InvalidInput, which does not quote a credential, for an address or a header that cannot be sent."""
    if "@" in theirs.address.split("://", 1)[-1].split("/", 1)[0]:
        raise InvalidInput(f"{where} has a user or a password.", "Give --header 'Authorization: Basic …' instead.")
    for name, value in theirs.headers.items():
        if not (name.isascii() and name.replace("-", "").isalnum() and value.isascii() and value.isprintable()):
            raise InvalidInput(
                f"The header {name[:40]!r} has a name or a value that cannot be sent.",
                "Use letters, digits and - in the name, and printable ASCII in the value.",
            )


def _secrets_of(theirs: Theirs) -> list[str]:
    """Return what no error may show: values of headers, with each word of them, and all after the question mark."""
    try:
        query = urlsplit(theirs.address).query
    except ValueError:
        query = theirs.address.partition("?")[2]
    words = [word for value in theirs.headers.values() for word in (value, *value.split())]
    return [query, *(value for _, value in parse_qsl(query)), *words]


def _list_at(whole: Any, items: str) -> list[Any]:
    found = at_path(whole, items)
    if isinstance(found, list):
        return cast("list[Any]", found)
    names = ", ".join(map(str, cast("dict[str, Any]", whole))) if isinstance(whole, dict) else "none"
    what = "is not there" if found is MISSING else "is no list"
    raise InvalidInput(
        f"{items or 'The answer'} {what} in the JSON.", f"Name the path to the list (items). The names are: {names}."
    )
