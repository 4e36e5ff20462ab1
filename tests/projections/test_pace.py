"""The pauses of read models between pages: when there are none, how they grow, and what ends them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput
from eventfold.projections import pace as pace_module
from eventfold.projections.pace import FIRST_PAUSE_S, MAX_PAUSE_S, Pace


class Sold(ef.Event):
    shop: ef.Tag
    amount: int = 0


class Sales(ef.Projection):
    shop: str
    total: int = 0

    def evolve(self, event: Sold) -> None:
        self.total += event.amount


def test_a_new_follower_does_not_pause() -> None:
    """Before its first page, and after a read that found nothing, a follower reads at once."""
    pace = Pace(MAX_PAUSE_S)
    assert pace.delay(17.0) == 0
    pace.after_page(10, more=False)
    pace.after_idle()
    assert pace.pause == 0
    assert pace.delay(17.0) == 0


def test_pauses_double_up_to_the_bound() -> None:
    """Each page of several events, beyond which there were none yet, doubles the pause, up to the bound."""
    pace = Pace(0.02)
    pauses: list[float] = []
    for _ in range(5):
        pace.after_page(2, more=False)
        pauses.append(pace.pause)
    assert pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S, 0.02, 0.02]


def test_a_full_page_ends_the_pauses() -> None:
    """A follower that is behind reads the next page at once."""
    pace = Pace(0.02)
    for _ in range(5):
        pace.after_page(100, more=False)
    pace.after_page(100, more=True)
    assert pace.pause == 0


def test_pages_of_one_event_do_not_pause() -> None:
    """Where each event is appended after the row of the previous one was read, no page waits."""
    pace = Pace(0.02)
    for _ in range(10):
        pace.after_page(1, more=False)
        assert pace.pause == 0


def test_pages_of_one_event_shorten_the_pause() -> None:
    """When appends become rare, each page of one event halves the pause, until there is none."""
    pace = Pace(0.02)
    for _ in range(5):
        pace.after_page(100, more=False)
    pauses: list[float] = []
    for _ in range(5):
        pace.after_page(1, more=False)
        pauses.append(pace.pause)
    assert pauses == [0.01, 0.005, 0.0025, 0.0, 0.0]


def test_followers_with_one_origin_pause_until_the_same_moment() -> None:
    """Pauses end at multiples of the bound, so that read models of one process read their pages together."""
    ends: set[float] = set()
    for now in (100.001, 100.013, 100.0249):
        pace = Pace(0.025, origin=100.0)
        for _ in range(5):
            pace.after_page(9, more=False)
        delay = pace.delay(now)
        assert 0 < delay <= 0.025
        ends.add(round(now + delay, 9))
    assert ends == {100.025}


def test_at_the_end_of_a_pause_the_next_one_is_a_whole_pause() -> None:
    """A page that ends exactly with a pause does not read the next one at once."""
    pace = Pace(0.25)
    for _ in range(9):
        pace.after_page(9, more=False)
    assert pace.delay(0.5) == 0.25


def test_a_bound_of_zero_means_no_pause() -> None:
    """With a bound of 0 the follower never pauses."""
    pace = Pace(0.0)
    pace.after_page(1000, more=False)
    assert pace.delay(3.0) == 0


@pytest.mark.parametrize("wrong", [-0.001, 1.5, float("nan"), float("inf"), "x", None])
def test_a_bound_outside_its_range_is_refused(tmp_path: Path, wrong: Any) -> None:
    """`max_pause` must be from 0 to 1 s."""
    with ef.Store(tmp_path / "log.db") as store, pytest.raises(InvalidInput, match="max_pause"):
        store.run(Sales, max_pause=wrong)


LONG_S = 600.0  # a pause that no test waits for: what returns within the time limit has ended it


@pytest.fixture
def pausing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make the first pause LONG_S seconds; the event is set when one is about to begin."""
    begins, delay = threading.Event(), Pace.delay

    def noted(self: Pace, now: float) -> float:
        found = delay(self, now)
        if found:
            begins.set()
        return found

    monkeypatch.setattr(pace_module, "LONGEST_PAUSE_S", LONG_S)
    monkeypatch.setattr(pace_module, "FIRST_PAUSE_S", LONG_S)
    monkeypatch.setattr(Pace, "delay", noted)
    return begins


@pytest.mark.timeout(60)
def test_a_caller_that_waits_ends_the_pause(tmp_path: Path, pausing: threading.Event) -> None:
    """`rows(wait=…)` in the process of the runner does not wait for the end of a pause, however long that is."""
    with ef.Store(tmp_path / "log.db") as store, store.run(Sales, max_pause=LONG_S):
        for turn in range(1, 6):
            pausing.clear()
            receipt = store.append(Sold("a", 1), Sold("a", 1))  # a page of two begins a pause
            assert store.rows(Sales, shop="a", wait=receipt.last)[0].total == 2 * turn
            assert pausing.wait(50)


@pytest.mark.timeout(60)
def test_pages_are_collected_while_others_append(pausing: threading.Event) -> None:
    """All appends of a pause are one commit of the read model; without pauses it commits each of them."""

    def commits(max_pause: float) -> int:
        with ef.Store("memory:") as store, store.run(Sales, max_pause=max_pause):

            def revision(position: int) -> int:
                while (found := store.projections.checkpoints(Sales)[0]).position < position:
                    time.sleep(0.002)
                return found.revision

            before = revision(store.append(Sold("b", 1), Sold("b", 1)).last)
            if max_pause:
                assert pausing.wait(50)
            for _ in range(20):
                last = store.append(Sold("b", 1)).last
                if not max_pause:
                    revision(last)
            store.wait(Sales)
            return revision(last) - before

    assert commits(LONG_S) == 1
    assert commits(0.0) == 20


@pytest.mark.timeout(60)
def test_stop_ends_a_pause(tmp_path: Path, pausing: threading.Event) -> None:
    """Stopping a runner does not wait for the end of a pause."""
    with ef.Store(tmp_path / "log.db") as store:
        running = store.run(Sales, max_pause=LONG_S)
        store.append(Sold("a", 1), Sold("a", 1))
        assert pausing.wait(50)
        running.stop()
