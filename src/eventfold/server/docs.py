"""The OpenAPI document, and the page that shows it: GET /v1/openapi.json and GET /v1/docs.

Knows: the table of routes of the server. Does not know: how the document is made, how the page looks.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from starlette.responses import Response

from eventfold.server.call import Call
from eventfold.server.content import compressed
from eventfold.server.docs_page import POLICY, page
from eventfold.server.etags import is_known
from eventfold.server.openapi import document
from eventfold.server.route import JSON, Route

_documents: dict[tuple[str, ...], bytes] = {}  # by the root path and the names of the stores; the routes are the same


def document_of(call: Call) -> bytes:
    """The document of the server that is called. It needs no credential, so it names stores only if no route does."""
    shows_names = not call.server.settings.access.is_configured
    names, root = tuple(sorted(call.server.stores)), call.root_path
    key = (str(shows_names), root, *names)
    if key not in _documents:
        _documents[key] = document(call.server.routes, names, root, shows_names=shows_names)
    return _documents[key]


async def openapi(call: Call) -> Response:
    """Answer with the document."""
    body = document_of(call)
    tag = f'"{blake2b(body, digest_size=9).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "Accept-Encoding"}
    if is_known(call.request, tag):
        return Response(status_code=304, headers=headers)
    return await compressed(call.request, Response(body, headers=headers, media_type=JSON))


async def docs(call: Call) -> Response:
    """Answer with the page."""
    body = page(document_of(call))
    tag = f'"{blake2b(body, digest_size=9).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "Accept-Encoding", "content-security-policy": POLICY}
    if is_known(call.request, tag):
        return Response(status_code=304, headers=headers)
    return await compressed(call.request, Response(body, headers=headers, media_type="text/html"))


ROUTES = (
    Route(
        method="GET",
        path="/v1/docs",
        handler=docs,
        scope=None,
        summary="This document as a page to read, without scripts and without other files",
        of_store=False,
        media=("text/html",),
        errors=(304,),
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        handler=openapi,
        scope=None,
        summary="This document: every path, parameter, type and error",
        of_store=False,
        response=dict[str, Any],
        errors=(304,),
    ),
)
