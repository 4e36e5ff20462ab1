"""Entity tags: what a client has already is not sent again.

A tag is strong: it names the store, its epoch, the position up to which the answer was made, and what was asked. Since
positions do not change, an answer with the same tag has the same bytes.
Knows: the headers ETag and If-None-Match. Does not know: how an answer is made.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from eventfold.ports.engine import Engine
from eventfold.server.content import ENCODINGS

VARY = "Accept, Accept-Encoding, Authorization"
CACHE_CONTROL = "private, no-cache"  # a client may keep the answer, and asks each time whether it is still valid
_encode = msgspec.json.Encoder(order="deterministic").encode


def entity_tag(engine: Engine, position: int, *variant: Any) -> str:
    """Return the tag of an answer that depends on the log up to `position`, and on `variant`: values of msgspec."""
    digest = blake2b(_encode(variant), digest_size=9).hexdigest()
    return f'"{engine.store_id}.{engine.epoch}.{position}.{digest}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has this answer, in any encoding."""
    header = request.headers.get("if-none-match")
    if header is None:
        return False
    return header.strip() == "*" or any(_plain(each) == tag for each in header.split(","))


def _plain(given: str) -> str:
    found = given.strip().removeprefix("W/")
    for encoding in ENCODINGS:
        found = found.replace(f'-{encoding}"', '"')
    return found


def tag_headers(tag: str) -> dict[str, str]:
    """Return the headers of an answer with a tag."""
    return {"etag": tag, "cache-control": CACHE_CONTROL, "vary": VARY}


def not_modified(tag: str) -> Response:
    """Return the answer to a client that has it already."""
    return Response(status_code=304, headers=tag_headers(tag))
