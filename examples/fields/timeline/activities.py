"""The events of the timeline as Activity Streams 2.0, the JSON in which social networks exchange what people do.

Knows: event classes, the vocabulary of the W3C. Does not know: stores, how activities are sent.
"""

from __future__ import annotations

from typing import Any

import eventfold as ef
from examples.fields.timeline.app import (
    CommentPosted,
    CommentWithdrawn,
    LikeWithdrawn,
    PersonBlocked,
    PostLiked,
    PostPublished,
    PostShared,
    PostWithdrawn,
    ShareWithdrawn,
)

CONTEXT = "https://www.w3.org/ns/activitystreams"


def as_activity(recorded: ef.Recorded[Any], base: str = "https://example.org") -> dict[str, Any]:
    """Return an event as an activity, under an id that is that of the event; `base`: the address of the network."""
    event = recorded.event
    actor = f"{base}/people/{event.person}" if hasattr(event, "person") else base
    activity = {"@context": CONTEXT, "id": f"{base}/activities/{recorded.id}", "published": event.at.isoformat()}
    post = f"{base}/posts/{getattr(event, 'post', '')}"
    match event:
        case PostPublished():
            return {**activity, "type": "Create", "actor": f"{base}/accounts/{event.account}", "object": post}
        case PostWithdrawn():
            return {**activity, "type": "Delete", "actor": base, "object": post}
        case PostLiked() | LikeWithdrawn():
            done = {"type": "Like", "actor": actor, "object": post}
        case PostShared() | ShareWithdrawn():
            done = {"type": "Announce", "actor": actor, "object": post}
        case CommentPosted() | CommentWithdrawn():
            note = {"type": "Note", "id": f"{base}/comments/{event.comment}", "inReplyTo": post}
            done = {"type": "Create", "actor": actor, "object": note}
        case PersonBlocked():
            return {**activity, "type": "Block", "actor": base, "object": actor, "summary": event.reason}
        case _:
            raise TypeError(f"{type(event).__name__} is no event of the timeline")
    if isinstance(event, LikeWithdrawn | ShareWithdrawn | CommentWithdrawn):
        return {**activity, "type": "Undo", "actor": actor, "object": done}
    return {**activity, **done}
