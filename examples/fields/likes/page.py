"""A page that shows ratings as they come, by server-sent events: an application for any ASGI server.

    uvicorn examples.fields.likes.page:application

Knows: the web framework, followers. Does not know: rules.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

import eventfold as ef
from examples.fields.likes.app import Rated, RatingChanged, RatingWithdrawn

PAGE = """<!doctype html><title>Ratings</title><h1>Ratings, as they come</h1><ol id="ratings"></ol><script>
const show = message => { const line = document.createElement("li"); line.textContent = message.data;
  document.getElementById("ratings").prepend(line); };
const source = new EventSource("/ratings");
for (const type of ["Rated", "RatingChanged", "RatingWithdrawn"]) source.addEventListener(type, show);
</script>"""


async def messages(store: ef.AsyncStore, last_id: str | None) -> AsyncIterator[str]:
    """Yield a message for each rating after the last one that a browser received; its id is the cursor."""
    query = ef.Query.of(types=[Rated, RatingChanged, RatingWithdrawn])
    async with store.follow(query, after=last_id or 0) as follower:
        async for recorded in follower:
            event = recorded.event
            data = {"film": event.film, "stars": getattr(event, "half_stars", 0) / 2}
            yield f"id: {follower.cursor}\nevent: {recorded.type}\ndata: {json.dumps(data)}\n\n"


async def stream(request: Request) -> StreamingResponse:
    """Answer with the messages, from the one that the browser names in `Last-Event-ID` on."""
    found = messages(request.app.state.store, request.headers.get("last-event-id"))
    return StreamingResponse(found, media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def page(_: Request) -> HTMLResponse:
    """Answer with the page."""
    return HTMLResponse(PAGE)


@contextlib.asynccontextmanager
async def lifespan(application: Starlette) -> AsyncGenerator[None]:
    """Open the store, and close it."""
    async with ef.AsyncStore(os.environ.get("LIKES_URL", "likes.db")) as store:
        application.state.store = store
        yield


application = Starlette(routes=[Route("/", page), Route("/ratings", stream)], lifespan=lifespan)
