"""Ratings of films: one of a person and a film, reviews hidden with reasons, a time for complaints, past rankings."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.demo.data import SOURCES
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from eventfold.testing import given
from eventfold.testing.clock import Clock
from examples.fields.likes import load as loading
from examples.fields.likes.app import (
    COMPLAINT_DAYS,
    ComplaintClosed,
    ComplaintFiled,
    ComplaintTime,
    Film,
    FilmListed,
    FilmScore,
    Rated,
    Rating,
    RatingChanged,
    RatingWithdrawn,
    Refused,
    ReviewHidden,
    ReviewRestored,
    complain,
    hide,
    rate,
    restore,
    withdraw,
)
from examples.fields.likes.check import check
from examples.fields.likes.load import load
from examples.fields.likes.page import application, messages
from examples.recipes.erasable_email import Email, keyed_hash, release, take
from tests.support.data import need
from tests.support.memory import tmp_path as tmp_path

ROWS = 2_000
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LISTED = FilmListed("f-1", "A film")
PAIR = Rating("f-1", "p-1")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ef.Store]:
    """A store with the first ratings of the source."""
    need("movielens")
    with ef.Store(str(tmp_path_factory.mktemp("likes") / "store.db")) as store:
        count = load(store, ROWS)
        assert (count.read, count.loaded) == (ROWS, ROWS)
        yield store


def test_counts_means_weeks_and_rankings_are_those_of_the_source(loaded: ef.Store) -> None:
    """Now and at a moment in the past, with profiles and films that are liked together."""
    checked = check(loaded, ROWS)
    assert checked.comparison.mismatches == []
    assert checked.comparison.compared > 1_000


def test_a_second_load_writes_nothing(loaded: ef.Store) -> None:
    """Each event has an id made from person, film and time."""
    before = loaded.head()
    count = load(loaded, ROWS)
    assert loaded.head() == before
    assert (count.loaded, count.repeated, count.is_complete) == (0, ROWS, True)


def test_a_row_that_is_no_number_of_half_stars_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read are rows loaded and rows rejected."""
    rows: dict[str, list[Any]] = {
        "timestamp": [1, 2, 3],
        "userId": [1, 1, 1],
        "movieId": [1, 2, 3],
        "rating": [0.5, 0.7, 5.5],
        "title": ["one", "two", "three"],
    }
    monkeypatch.setattr(loading, "read_frame", lambda *_: rows)
    with ef.Store("memory:") as store:
        count = load(store)
    assert (count.read, count.loaded, count.rejected) == (3, 1, {"are no number of half stars from 1 to 10": 2})


def test_of_32_clicks_of_one_person_one_rating_is_counted(served: str) -> None:
    """Without the condition of the decision several are recorded, and the check finds that."""
    with ef.Store(served) as store:
        store.append(LISTED, FilmListed("f-2", "Another"))
    for film, is_kept in (("f-1", True), ("f-2", False)):
        clicks = [(Film(film), Rating(film, "p-1"), 8, NOW)] * 32
        result = contend(served, rate, clicks, Refused, conditional=is_kept)
        assert (result.accepted == 1) is is_kept, f"{result}"
        with ef.Store(served) as store:
            assert store.view(FilmScore)[film].ratings == result.accepted


def test_32_people_rate_one_film_without_a_conflict(served: str) -> None:
    """The most popular film has no queue."""
    with ef.Store(served) as store:
        store.append(LISTED)
    people = [(Film("f-1"), Rating("f-1", f"p-{n}"), 8, NOW) for n in range(32)]
    result = contend(served, rate, people, Refused)
    assert (result.accepted, result.conflicts) == (32, 0)


def test_a_rating_is_corrected_and_the_sum_follows() -> None:
    """Changed and withdrawn: the earlier values stay in the log, and what was shown then is still shown then."""
    with ef.Store("memory:") as store:
        store.append(LISTED)
        for half_stars in (8, 3, 3):
            store.decide(rate, Film("f-1"), PAIR, half_stars, NOW)
        store.decide(rate, Film("f-1"), Rating("f-1", "p-2"), 10, NOW)
        assert store.view(FilmScore, at=2)["f-1"] == FilmScore("f-1", 1, 8)
        assert store.view(FilmScore)["f-1"] == FilmScore("f-1", 2, 13)
        store.decide(withdraw, PAIR, NOW)
        assert store.view(FilmScore)["f-1"] == FilmScore("f-1", 1, 10)
        kinds = [type(each.event) for each in store.read()]
    assert kinds == [FilmListed, Rated, RatingChanged, Rated, RatingWithdrawn]


def test_what_the_rule_refuses() -> None:
    """Unlisted films, numbers that are none, a rating whose review is hidden, hiding without reasons."""
    rated = Rated("f-1", "p-1", 8, NOW)
    given().when(rate, Film("f-1"), PAIR, 8, NOW).raises(Refused, "not listed")
    given(LISTED).when(rate, Film("f-1"), PAIR, 11, NOW).raises(Refused, "11 half stars")
    given(LISTED).when(withdraw, PAIR, NOW).raises(Refused, "no rating")
    given(LISTED, rated).when(hide, PAIR, " ", NOW).raises(Refused, "with reasons")
    hidden = given(LISTED, rated, ReviewHidden("f-1", "p-1", "names a private person", NOW))
    hidden.when(rate, Film("f-1"), PAIR, 2, NOW).raises(Refused, "names a private person")
    hidden.when(withdraw, PAIR, NOW).raises(Refused, "no rating")
    hidden.when(hide, PAIR, "again", NOW).nothing()
    hidden.when(complain, PAIR, NOW).then(ComplaintFiled("f-1", "p-1", NOW))
    hidden.when(complain, PAIR, NOW).nothing()
    hidden.when(restore, PAIR, "it does not", NOW).then(ReviewRestored("f-1", "p-1", "it does not", NOW))
    hidden.when(rate, Film("f-1"), PAIR, 2, NOW).then(RatingChanged("f-1", "p-1", 2, 8, NOW))
    hidden.when(complain, PAIR, NOW).raises(Refused, "cannot complain")


def test_the_time_for_complaints_ends_after_six_months() -> None:
    """A timer in the log: a complaint before is taken, one after it is refused, and why it was hidden stays known."""
    with ef.Store("memory:") as store:
        store.append(LISTED, Rated("f-1", "p-1", 8, NOW), Rated("f-1", "p-2", 8, NOW))
        begun = store.decide(hide, PAIR, "names a private person", NOW).events[0].time
        store.decide(hide, Rating("f-1", "p-2"), "an advertisement", NOW)
        clock = Clock(begun + timedelta(days=COMPLAINT_DAYS - 1))
        store.run_until_idle(ComplaintTime, clock=clock)
        assert store.decide(complain, PAIR, NOW).events
        store.decide(restore, Rating("f-1", "p-2"), "it was none", NOW)
        store.run_until_idle(ComplaintTime, clock=clock)
        clock.advance(2 * 86_400)
        store.run_until_idle(ComplaintTime, clock=clock)
        closed = [each.event for each in store.read(ef.Query.of(types=[ComplaintClosed]))]
        assert closed == [ComplaintClosed("f-1", "p-1")]
        with pytest.raises(Refused, match="cannot complain"):
            store.decide(complain, PAIR, NOW)
        assert store.state(PAIR).hidden == "names a private person"


def test_a_forged_rating_is_found(loaded: ef.Store, tmp_path: Path) -> None:
    """A second rating of one person: the check names the event, the person and the film."""
    first = next(iter(loaded.read(ef.Query.of(types=[Rated])))).event
    path = str(tmp_path / "copy.db")
    loaded.backup(path)
    with ef.Store(path) as store:
        position = forge(store, first)
        found = [each.figure for each in check(store, ROWS).comparison.mismatches]
    assert f"event {position}: {first.person} has rated {first.film} before" in found


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """The engine compares each payload with its checksum."""
    path = tmp_path / "store.db"
    with ef.Store(str(path)) as store:
        store.append(LISTED, Rated("f-1", "p-1", 8, NOW))
    change_byte(path, 1)
    assert {flaw.position for flaw in damage_of(str(path)).flaws} - {None} == {1}


def test_a_person_is_erased_and_the_means_stay(tmp_path: Path) -> None:
    """By the recipe for an address that can be erased: the log has a keyed hash only."""
    secret, addresses, path = b"0123456789abcdef", {"p-1": "ada@example.org"}, tmp_path / "store.db"
    with ef.Store(str(path)) as store:
        store.decide(take, Email(keyed_hash(secret, addresses["p-1"])), "p-1")
        store.append(LISTED)
        store.decide(rate, Film("f-1"), PAIR, 8, NOW)
        store.decide(release, Email(keyed_hash(secret, addresses.pop("p-1"))), "p-1")
        assert store.view(FilmScore)["f-1"] == FilmScore("f-1", 1, 8)
    search = "import pathlib, sys; sys.exit(b'example.org' in pathlib.Path(sys.argv[1]).read_bytes().lower())"
    assert subprocess.run([sys.executable, "-c", search, str(path)], check=False).returncode == 0


def test_ratings_go_to_a_page_as_they_come_and_a_browser_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server-sent events: each has the cursor as its id, from which the next connection continues."""
    url = str(tmp_path / "likes.db")
    monkeypatch.setenv("LIKES_URL", url)
    with TestClient(application) as client:
        assert 'new EventSource("/ratings")' in client.get("/").text

    async def follow() -> list[str]:
        async with ef.AsyncStore(url) as store:
            await store.append(LISTED, Rated("f-1", "p-1", 8, NOW))
            stream = messages(store, None)
            first = await anext(stream)
            await stream.aclose()
            last_id = first.splitlines()[0].removeprefix("id: ")
            resumed = messages(store, last_id)
            waiting = asyncio.ensure_future(anext(resumed))
            await store.append(Rated("f-1", "p-2", 3, NOW))
            second = await asyncio.wait_for(waiting, 30)
            await resumed.aclose()
            return [first, second]

    first, second = asyncio.run(follow())
    assert first.splitlines()[1] == second.splitlines()[1] == "event: Rated"
    assert json.loads(first.splitlines()[2].removeprefix("data: ")) == {"film": "f-1", "stars": 4.0}
    assert json.loads(second.splitlines()[2].removeprefix("data: ")) == {"film": "f-1", "stars": 1.5}


def test_figures_of_these_data_are_not_published() -> None:
    """Their licence forbids it: the table and the plots of the documents leave them out."""
    from examples.fields.__main__ import UNPUBLISHED, row

    assert not SOURCES["movielens"].may_publish
    assert "likes" in UNPUBLISHED
    found = {"seconds": {"load": 1.0}, "rows": {"read": 77, "events": 88}, "memory": 1, "compared": 99, "size": 1}
    shown = " ".join(row("likes", 0, found | {"mismatches": []}))
    assert not {"77", "88", "99"} & set(shown.split())
