"""The pauses of read models between pages: when there are none, how they grow, and what ends them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput
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


@pytest.mark.timeout(60)
def test_a_caller_that_waits_ends_the_pause(tmp_path: Path) -> None:
    """`rows(wait=…)` in the process of the runner does not wait for the end of a pause, however long that is."""
    path = tmp_path / "log.db"
    stop = threading.Event()

    def write() -> None:
        with ef.Store(path) as other:
            while not stop.wait(0.001):
                other.append(Sold("b", 1))

    with ef.Store(path) as store, store.run(Sales, max_pause=1.0):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            time.sleep(3.0)  # the pauses have reached their bound
            waited: list[float] = []
            for _ in range(9):
                receipt = store.append(Sold("a", 1))
                began = time.monotonic()
                assert store.rows(Sales, shop="a", wait=receipt.last)[0].total > 0
                waited.append(time.monotonic() - began)
        finally:
            stop.set()
            writer.join()
    assert sorted(waited)[4] < 0.25


@pytest.mark.timeout(60)
def test_pages_are_collected_while_others_append() -> None:
    """Beside a writer the read model commits about once in each pause; without pauses it commits far more often."""

    def commits(max_pause: float) -> int:
        # In memory, and so slowly that a page of one pause is not full: a full page ends the pauses.
        with ef.Store("memory:") as store, store.run(Sales, max_pause=max_pause):
            ends = time.monotonic() + 2
            while time.monotonic() < ends:
                store.append(Sold("b", 1))
                time.sleep(0.001)
            store.wait(Sales)
            return store.projections.checkpoints(Sales)[0].revision

    assert commits(0.2) < commits(0.0) / 2


@pytest.mark.timeout(60)
def test_stop_ends_a_pause(tmp_path: Path) -> None:
    """Stopping a runner does not wait for the end of a pause."""
    with ef.Store(tmp_path / "log.db") as store:
        running = store.run(Sales, max_pause=1.0)
        ends = time.monotonic() + 2
        while time.monotonic() < ends:
            store.append(Sold("a", 1))
            time.sleep(0.001)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 0.5
