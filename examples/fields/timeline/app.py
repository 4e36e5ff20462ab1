"""A timeline of posts: likes, shares and comments, each counted once, and what stood there when one looked.

The rule: a person likes a post once and shares it once, takes back only what they gave, and reacts to no withdrawn post
and not while blocked. It holds over three things at once, the post, the person and the pair of both, and not over the
post's counter: so thousands may like one post in the same second, and only a double click is a conflict.

Knows: events, states, decisions, read models. Does not know: where posts come from. No text of a post is kept.
"""

from __future__ import annotations

from datetime import datetime

import eventfold as ef


class PostPublished(ef.Event):
    """An account published a post; `reply`: it answers another one."""

    post: ef.Tag
    account: ef.Tag
    at: datetime
    reply: bool = False


class PostWithdrawn(ef.Event):
    post: ef.Tag
    at: datetime


class PostLiked(ef.Event):
    post: ef.Tag
    person: ef.Tag
    at: datetime


class LikeWithdrawn(ef.Event):
    post: ef.Tag
    person: ef.Tag
    at: datetime


class PostShared(ef.Event):
    post: ef.Tag
    person: ef.Tag
    at: datetime


class ShareWithdrawn(ef.Event):
    post: ef.Tag
    person: ef.Tag
    at: datetime


class CommentPosted(ef.Event):
    post: ef.Tag
    comment: ef.Tag
    person: ef.Tag
    at: datetime


class CommentWithdrawn(ef.Event):
    post: ef.Tag
    comment: ef.Tag
    person: ef.Tag
    at: datetime


class PersonBlocked(ef.Event):
    """A person may not react any more; `reason` is the statement of reasons that the person is sent."""

    person: ef.Tag
    reason: str
    at: datetime


Reacted = PostLiked | LikeWithdrawn | PostShared | ShareWithdrawn | CommentPosted | CommentWithdrawn


class Refused(Exception):
    """The rule forbids it."""


class Post(ef.State):  # no reaction is folded into it: reactions do not conflict here
    post: ef.Tag
    published: bool = False
    withdrawn: bool = False

    def evolve(self, event: PostPublished | PostWithdrawn) -> None:
        self.published = True
        self.withdrawn = isinstance(event, PostWithdrawn)


class Standing(ef.State):
    """Why a person may not react, or None."""

    person: ef.Tag
    blocked: str | None = None

    def evolve(self, event: PersonBlocked) -> None:
        self.blocked = event.reason


class Reaction(ef.State):  # folded from events that have both tags
    post: ef.Tag
    person: ef.Tag
    liked: bool = False
    shared: bool = False

    def evolve(self, event: PostLiked | LikeWithdrawn | PostShared | ShareWithdrawn) -> None:
        if isinstance(event, PostLiked | LikeWithdrawn):
            self.liked = isinstance(event, PostLiked)
        else:
            self.shared = isinstance(event, PostShared)


class Comment(ef.State):
    comment: ef.Tag
    author: str | None = None

    def evolve(self, event: CommentPosted) -> None:
        self.author = event.person


def require_open(post: Post, standing: Standing) -> None:
    if not post.published or post.withdrawn:
        raise Refused(f"post {post.post} is not there")
    if standing.blocked is not None:
        raise Refused(f"person {standing.person} is blocked: {standing.blocked}")


def like(post: Post, standing: Standing, reaction: Reaction, at: datetime) -> list[PostLiked]:
    require_open(post, standing)
    return [] if reaction.liked else [PostLiked(post.post, standing.person, at)]


def share(post: Post, standing: Standing, reaction: Reaction, at: datetime) -> list[PostShared]:
    require_open(post, standing)
    return [] if reaction.shared else [PostShared(post.post, standing.person, at)]


def take_back(reaction: Reaction, what: str, at: datetime) -> LikeWithdrawn | ShareWithdrawn:
    if not (reaction.liked if what == "like" else reaction.shared):
        raise Refused(f"person {reaction.person} gave post {reaction.post} no {what}")
    return (LikeWithdrawn if what == "like" else ShareWithdrawn)(reaction.post, reaction.person, at)


def write_comment(post: Post, standing: Standing, comment: Comment, at: datetime) -> list[CommentPosted]:
    require_open(post, standing)
    return [] if comment.author else [CommentPosted(post.post, comment.comment, standing.person, at)]


class Timeline(ef.Projection):
    post: str
    published: datetime | None = None
    withdrawn: bool = False
    likes: int = 0
    shares: int = 0
    comments: int = 0

    def evolve(self, event: PostPublished | PostWithdrawn | Reacted) -> None:
        match event:
            case PostPublished():
                self.published = event.at
            case PostWithdrawn():
                self.withdrawn = True
            case PostLiked() | LikeWithdrawn():
                self.likes += 1 if isinstance(event, PostLiked) else -1
            case PostShared() | ShareWithdrawn():
                self.shares += 1 if isinstance(event, PostShared) else -1
            case CommentPosted() | CommentWithdrawn():
                self.comments += 1 if isinstance(event, CommentPosted) else -1


class WeekOfPost(ef.Projection):
    """The likes that a post was given in a week, "2016-W45": the top of the week is this table by likes."""

    week: str
    post: str
    likes: int = 0

    @staticmethod
    def key(event: PostLiked) -> tuple[str, str]:
        return event.at.strftime("%G-W%V"), event.post

    def evolve(self, event: PostLiked) -> None:
        self.likes += 1


class Profile(ef.Projection):
    """How often a person has reacted, and how often that was taken back."""

    person: str
    given: int = 0
    taken_back: int = 0

    def evolve(self, event: Reacted) -> None:
        back = isinstance(event, LikeWithdrawn | ShareWithdrawn | CommentWithdrawn)
        self.given += not back
        self.taken_back += back
