"""The timeline: a reaction counts once, however often it is clicked, and what stood there at a moment in the past."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.demo.fields import LoadCount, change_byte, contend, damage_of, forge
from eventfold.testing import given
from examples.fields.timeline import load as loading
from examples.fields.timeline.activities import as_activity
from examples.fields.timeline.app import (
    Comment,
    CommentPosted,
    LikeWithdrawn,
    PersonBlocked,
    Post,
    PostLiked,
    PostPublished,
    PostShared,
    PostWithdrawn,
    Reaction,
    Refused,
    Standing,
    Timeline,
    like,
    share,
    take_back,
    write_comment,
)
from examples.fields.timeline.check import check
from examples.fields.timeline.load import load, read_posts
from examples.recipes.erasable_email import Email, keyed_hash, release, take
from tests.support.data import need
from tests.support.memory import tmp_path as tmp_path

POSTS = 40
NOON = datetime(2017, 12, 24, 12, tzinfo=UTC)
PUBLISHED = PostPublished("1", "a-1", NOON)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ef.Store]:
    """A store with the newest posts and their reactions."""
    need("posts")
    with ef.Store(str(tmp_path_factory.mktemp("timeline") / "store.db")) as store:
        assert load(store, POSTS).loaded == POSTS
        yield store


def test_every_counter_of_a_slice_is_that_of_the_source(loaded: ef.Store) -> None:
    """Now, by week, by person, and as the timeline stood at a moment in the past."""
    checked = check(loaded, POSTS)
    assert checked.comparison.mismatches == []
    assert checked.comparison.compared > 1_000
    assert checked.plot is not None
    assert "likes" in checked.plot


def test_a_second_load_writes_nothing(loaded: ef.Store) -> None:
    """Each event has an id made from the source, so it is recognised."""
    before = loaded.head()
    count = load(loaded, POSTS)
    assert loaded.head() == before
    assert (count.read, count.loaded, count.repeated, count.events) == (POSTS, 0, POSTS, 0)


def test_a_row_that_is_no_post_of_the_account_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read are rows loaded and rows rejected, with the reason."""
    rows = {
        "id_str": [2, 1, 3],
        "created_at": ["2017-12-24T12:00:00Z"] * 3,
        "favorite_count": [1, 2, 3],
        "retweet_count": [1, 2, 3],
        "in_reply_to_user_id_str": [float("nan"), 7.0, 7.0],
        "is_retweet": [False, False, True],
    }
    monkeypatch.setattr(loading, "read_frame", lambda *_: rows)
    count = LoadCount()
    assert [(post.id, post.reply) for post in read_posts(count)] == [("1", True), ("2", False)]
    with ef.Store("memory:") as store:
        count = load(store)
    assert (count.read, count.loaded, sum(count.rejected.values())) == (3, 2, 1)
    assert count.is_complete


def test_of_32_clicks_on_one_post_by_one_person_one_counts(served: str) -> None:
    """Without the condition of the decision several are recorded."""
    with ef.Store(served) as store:
        store.append(PUBLISHED, PostPublished("2", "a-1", NOON))
    for post, is_kept in (("1", True), ("2", False)):
        click = (Post(post), Standing("p-1"), Reaction(post, "p-1"), NOON)
        result = contend(served, like, [click] * 32, Refused, conditional=is_kept)
        assert (result.accepted == 1) is is_kept, f"{result}"
        assert result.refused == 0
        with ef.Store(served) as store:
            assert store.count(ef.Query.of(types=[PostLiked], tags=f"post:{post}")) == result.accepted


def test_32_people_like_one_post_without_a_conflict(served: str) -> None:
    """The decision is over the pair of person and post: a post that everyone likes has no queue."""
    with ef.Store(served) as store:
        store.append(PUBLISHED)
    people = [(Post("1"), Standing(f"p-{n}"), Reaction("1", f"p-{n}"), NOON) for n in range(32)]
    result = contend(served, like, people, Refused)
    assert (result.accepted, result.conflicts) == (32, 0)


def test_no_reaction_follows_the_withdrawal_of_its_post(served: str) -> None:
    """One task withdraws the post while 31 like it: those that come later are refused."""

    def act(post: Post, standing: Standing, reaction: Reaction) -> list[ef.Event]:
        if standing.person == "p-16":
            return [PostWithdrawn(post.post, NOON)]
        return list(like(post, standing, reaction, NOON))

    with ef.Store(served) as store:
        store.append(PUBLISHED)
    result = contend(
        served, act, [(Post("1"), Standing(f"p-{n}"), Reaction("1", f"p-{n}")) for n in range(32)], Refused
    )
    with ef.Store(served) as store:
        kinds = [type(recorded.event) for recorded in store.read()]
    assert PostLiked not in kinds[kinds.index(PostWithdrawn) :]
    assert result.accepted + result.refused == 32


def test_what_the_rule_refuses() -> None:
    """No reaction to what is not there or by a blocked person, and nothing is taken back that was not given."""
    post, person, pair = Post("1"), Standing("p-1"), Reaction("1", "p-1")
    given(PUBLISHED, PostWithdrawn("1", NOON)).when(like, post, person, pair, NOON).raises(Refused, "not there")
    given(PUBLISHED).when(share, Post("2"), person, Reaction("2", "p-1"), NOON).raises(Refused, "not there")
    blocked = given(PUBLISHED, PersonBlocked("p-1", "spam in forty comments", NOON))
    blocked.when(write_comment, post, person, Comment("1-1"), NOON).raises(Refused, "spam in forty comments")
    given(PUBLISHED).when(take_back, pair, "like", NOON).raises(Refused, "no like")
    liked = given(PUBLISHED, PostLiked("1", "p-1", NOON))
    liked.when(take_back, pair, "share", NOON).raises(Refused, "no share")
    liked.when(like, post, person, pair, NOON).nothing()
    liked.when(take_back, pair, "like", NOON).then(LikeWithdrawn("1", "p-1", NOON))


def test_the_past_does_not_change_when_more_is_recorded() -> None:
    """The timeline at noon is the same after later likes and a withdrawal, which the timeline of now shows."""
    later = NOON + timedelta(hours=1)
    with ef.Store("memory:") as store:
        store.append(ef.Draft(PUBLISHED, occurred=NOON), ef.Draft(PostLiked("1", "p-1", NOON), occurred=NOON))
        then = store.view(Timeline, occurred_until=NOON)["1"]
        store.append(
            ef.Draft(PostLiked("1", "p-2", later), occurred=later), ef.Draft(PostWithdrawn("1", later), occurred=later)
        )
        assert store.view(Timeline, occurred_until=NOON)["1"] == then == Timeline("1", NOON, False, 1)
        assert store.view(Timeline)["1"] == Timeline("1", NOON, True, 2)


def test_a_forged_like_is_found(loaded: ef.Store, tmp_path: Path) -> None:
    """A program that bypasses the decision likes a second time: the check names person and post."""
    first = next(iter(loaded.read(ef.Query.of(types=[PostLiked])))).event
    path = str(tmp_path / "copy.db")
    loaded.backup(path)
    with ef.Store(path) as store:
        position = forge(store, first)
        found = check(store, POSTS).comparison.mismatches
    assert any(f"event {position}: the like of {first.person} on {first.post}" in each.figure for each in found)
    assert any(each.figure == f"likes, shares and comments now, {first.post}" for each in found)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """The engine compares each payload with its checksum."""
    path = tmp_path / "store.db"
    with ef.Store(str(path)) as store:
        store.append(PUBLISHED, PostLiked("1", "p-1", NOON), PostLiked("2", "p-2", NOON))
    assert not damage_of(str(path)).flaws
    change_byte(path, 2)
    assert {flaw.position for flaw in damage_of(str(path)).flaws} - {None} == {2}


def test_a_person_is_erased_and_the_counters_stay(tmp_path: Path) -> None:
    """By the recipe for an address that can be erased: the log has a keyed hash only, the address is in a table."""
    secret, addresses, path = b"0123456789abcdef", {"p-1": "ada@example.org"}, tmp_path / "store.db"
    with ef.Store(str(path)) as store:
        store.decide(take, Email(keyed_hash(secret, addresses["p-1"])), "p-1")
        store.append(PUBLISHED)
        store.decide(like, Post("1"), Standing("p-1"), Reaction("1", "p-1"), NOON)
        store.decide(release, Email(keyed_hash(secret, addresses.pop("p-1"))), "p-1")
        assert store.view(Timeline)["1"].likes == 1
    search = "import pathlib, sys; sys.exit(b'example.org' in pathlib.Path(sys.argv[1]).read_bytes().lower())"
    assert subprocess.run([sys.executable, "-c", search, str(path)], check=False).returncode == 0
    assert addresses == {}


def test_events_go_out_as_activities() -> None:
    """A like is a Like, its withdrawal an Undo of one, and each has the id of its event."""
    with ef.Store("memory:") as store:
        store.append(
            PUBLISHED,
            PostLiked("1", "p-1", NOON),
            LikeWithdrawn("1", "p-1", NOON),
            PostShared("1", "p-1", NOON),
            CommentPosted("1", "1-1", "p-1", NOON),
            PersonBlocked("p-1", "spam", NOON),
            PostWithdrawn("1", NOON),
        )
        activities = [as_activity(recorded) for recorded in store.read()]
        ids = [str(recorded.id) for recorded in store.read()]
    kinds = ["Create", "Like", "Undo", "Announce", "Create", "Block", "Delete"]
    assert [each["type"] for each in activities] == kinds
    assert [each["id"].rpartition("/")[2] for each in activities] == ids
    assert activities[2]["object"]["object"] == activities[1]["object"]
    assert activities[4]["object"]["inReplyTo"].endswith("/posts/1")
