"""What is recorded while a store is used, for both kinds of store."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold import monitoring
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventIdReused, InvalidInput, ProcessError, StoreBusy
from eventfold.monitoring.labels import MAX_VALUES
from eventfold.ports.engine import Engine
from eventfold.ports.wrapping import Wrapping
from tests.monitoring.shop import Order, Paid, Placed, Samples, Sold, mail, place

PLACED = "metrics-shop-placed"


def test_appends_are_counted_by_outcome_and_events_by_type() -> None:
    """Written, repeated, conflict, refused; and nothing is counted as unconfirmed that was not."""
    with monitoring.measured(ef.Store("memory:")) as store:
        store.append(Placed("a"), Placed("b"), Paid("a"), key="once")
        store.append(Placed("a"), Placed("b"), Paid("a"), key="once")
        store.append(Paid("b"))
        with pytest.raises(AppendConflict):
            store.append(Paid("b"), unless=ef.Query.of(types=[Paid]))
        id = uuid4()
        store.append(ef.Draft(Placed("c"), id=id))
        with pytest.raises(EventIdReused):
            store.append(ef.Draft(Placed("d"), id=id))
        samples = Samples(monitoring.collector(store))
    outcomes = {"written": 3, "repeated": 1, "conflict": 1, "refused": 1, "unconfirmed": 0, "failed": 0}
    assert {each: samples("appends_total", outcome=each) for each in outcomes} == outcomes
    assert samples("events_appended_total", type=PLACED) == 3
    assert samples("events_appended_total", type="metrics-shop-paid") == 2
    assert samples("append_duration_seconds_count") == samples("commit_duration_seconds_count") == 6
    assert samples("commit_requests_sum") == 6


def test_an_append_of_unknown_outcome_is_counted_before_it_is_repeated() -> None:
    """The rule Unconfirmed sees each lost answer, also if the repetition then finds what was written."""

    class Losing(Wrapping):
        lost = 0

        async def append_many(self, requests: Any) -> Any:
            outcomes = await self.inner.append_many(requests)
            if not self.lost:
                self.lost = 1
                raise AppendUnconfirmed("The answer was lost.", "Repeat the append.")
            return outcomes

    def losing() -> Engine:
        from eventfold.engines import open_engine

        return Losing(open_engine("memory:", "sync", True, {}))

    with monitoring.measured(ef.Store(losing())) as store:
        store.append(Placed("a"))
        samples = Samples(monitoring.collector(store))
    assert samples("appends_total", outcome="unconfirmed") == 1
    assert samples("appends_total", outcome="repeated") == 1
    assert samples("append_duration_seconds_count") == 2


def test_a_decision_is_counted_with_its_attempts_under_its_name(tmp_path: Path) -> None:
    """A conflict makes two attempts; the name is that of the function in the code."""
    path, other_writes = str(tmp_path / "shop.db"), [True]
    with ef.Store(path) as other, monitoring.measured(ef.Store(path)) as store:

        def place_once(order: Order) -> Placed:
            if other_writes and other_writes.pop():
                other.append(Placed(order.order))
            return Placed(order.order)

        store.decide(place_once, Order("a"))
        with pytest.raises(ValueError, match="no"):
            store.decide(refuse, Order("a"))
        samples = Samples(monitoring.collector(store))
    name = "test_a_decision_is_counted_with_its_attempts_under_its_name.<locals>.place_once"
    assert samples("decide_attempts_sum", decision=name) == 2
    assert samples("decide_duration_seconds_count", decision=name) == 1
    assert samples("decide_attempts_count", decision="refuse") == 1
    assert samples("appends_total", outcome="conflict") == 1


def refuse(order: Order) -> Placed:
    """Refuse to decide."""
    raise ValueError("no")


def test_reads_are_counted_by_what_they_are_for(tmp_path: Path) -> None:
    """page, state, follow and scan; and how the cache of states was used."""
    with monitoring.measured(ef.Store(str(tmp_path / "shop.db"))) as store:
        store.append(*(Placed("a") for _ in range(10)))
        assert len(list(store.read())) == 10
        assert store.state(Order("a")).placed == 10
        store.decide(place, Order("a"))
        store.decide(place, Order("a"))
        store.project(Sold)
        with store.follow() as follower:
            next(iter(follower))
            samples = Samples(monitoring.collector(store))
            assert samples("followers") == 1
        kinds = {each: samples("read_events_total", kind=each) for each in ("page", "state", "follow", "scan")}
        assert kinds == {"page": 10, "state": 10, "follow": 12, "scan": 12}
        assert samples("read_duration_seconds_count", kind="page") == 1
        assert samples("state_cache_total", result="miss") == 1
        assert samples("state_cache_total", result="hit") == 2
        store.state(Order("a"))
        after = Samples(monitoring.collector(store))
        assert after("state_cache_total", result="caught_up") == 1
        assert after("followers") == 0


def test_the_wait_for_a_lock_is_observed_also_if_it_is_in_vain(tmp_path: Path) -> None:
    """One caller gets the lock at once, the other gives up."""
    with monitoring.measured(ef.Store(str(tmp_path / "shop.db"))) as store:
        with store.lock(Order("a")), pytest.raises(StoreBusy), store.lock(Order("a"), timeout=0.1):
            pass
        samples = Samples(monitoring.collector(store))
    assert samples("lock_wait_seconds_count") == 2
    waited = samples("lock_wait_seconds_sum")
    assert waited is not None and waited > 0.01


def test_calls_of_effects_are_counted_by_outcome(tmp_path: Path) -> None:
    """A process that runs effects counts what it delivered, and what failed."""
    with monitoring.measured(ef.Store(str(tmp_path / "shop.db"))) as store:
        store.append(Paid("a"), Paid("b"), Paid("bad"))
        with pytest.raises(ProcessError):
            store.run_until_idle(mail)
        samples = Samples(monitoring.collector(store))
    assert samples("effect_attempts_total", effect="metrics_mail", outcome="delivered") == 2
    assert samples("effect_attempts_total", effect="metrics_mail", outcome="failed") == 1
    assert samples("effects_undelivered", effect="metrics_mail") == 1


async def _use(store: ef.AsyncStore) -> None:
    await store.append(Placed("a"), Placed("b"))
    await store.decide(place, Order("a"))
    await store.state(Order("a"))
    assert len([each async for each in store.read()]) == 3
    async with store.lock(Order("a")):
        pass
    await store.project(Sold)
    async with store.follow() as follower:
        async for _ in follower:
            break


def test_an_async_store_is_measured_alike(tmp_path: Path) -> None:
    """Every method that has metrics of its own, on the event loop; the state is read from another thread."""
    import asyncio

    async def use() -> Samples:
        async with monitoring.measured(ef.AsyncStore(str(tmp_path / "shop.db")), "shop") as store:
            await _use(store)
            return await asyncio.to_thread(Samples, monitoring.collector(store))

    samples = asyncio.run(use())
    assert samples("appends_total", store="shop", outcome="written") == 2
    assert samples("append_duration_seconds_count", store="shop") == 2
    kinds = {each: samples("read_events_total", store="shop", kind=each) for each in ("page", "follow", "scan")}
    assert kinds == {"page": 3, "follow": 3, "scan": 3}
    assert samples("decide_attempts_count", store="shop", decision="place") == 1
    assert samples("lock_wait_seconds_count", store="shop") == 1
    assert samples("projection_lag_events", store="shop", projection="metrics_sold") == 0
    assert samples("followers", store="shop") == 0


def test_appends_of_many_threads_combine_and_each_is_counted(tmp_path: Path) -> None:
    """As many outcomes as appends, in fewer commits or as many; no count is lost between threads."""
    with monitoring.measured(ef.Store(str(tmp_path / "shop.db"))) as store:

        def write() -> None:
            for _ in range(50):
                store.append(Placed("a"))

        threads = [threading.Thread(target=write) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        samples = Samples(monitoring.collector(store))
    assert samples("appends_total", outcome="written") == samples("append_duration_seconds_count") == 400
    assert samples("commit_requests_sum") == samples("events_appended_total", type=PLACED) == 400
    commits = samples("commit_duration_seconds_count")
    assert commits == samples("commit_requests_count") and commits is not None and 1 <= commits <= 400


def test_labels_are_bounded_under_ten_thousand_types_and_hostile_names() -> None:
    """200 types have a series, the others are one; quotes, line breaks and very long names are read back unchanged."""
    hostile = ['a"b', "a\\", "a\\nb", "{}", 'x"} 1 # HELP forged_total', "é", "t" * 255]

    def named(order: Order) -> Placed:
        return Placed(order.order)

    named.__qualname__ = 'x"} 1\nforged_total 1\n\ud800'
    with monitoring.measured(ef.Store("memory:")) as store:
        store.decide(named, Order("a"))
        for name in hostile:
            store.append_encoded(ef.NewEvent.of(name, b"{}"))
        for start in range(0, 10_000, 1_000):
            store.append_encoded(*(ef.NewEvent.of(f"type-{start + n}", b"{}") for n in range(1_000)))
        samples = Samples(monitoring.collector(store))
    types = [each["type"] for each in samples.of("events_appended_total")]
    assert len(types) == MAX_VALUES + 1
    assert set(hostile) <= set(types) and "other" in types
    assert samples("events_appended_total", type="other") == 10_001 + len(hostile) - MAX_VALUES
    assert not any("forged" in name for name in samples.names)
    assert samples("decide_attempts_count", decision='x"} 1\nforged_total 1\n?') == 1


def place_as(who: str, order: Order) -> Placed:
    """Decide for one person."""
    assert who
    return Placed(order.order)


def test_no_label_has_data() -> None:
    """Values of tags, ids and actors are in no label, also where a decision is an object that has them."""
    secret = "customer-4711"
    with monitoring.measured(ef.Store("memory:")) as store:
        store.using(actor=secret).append(Placed(secret), key=secret)
        store.decide(partial(place_as, secret), Order(secret))
        text = Samples(monitoring.collector(store)).text
    assert secret not in text
    assert 'decision="place_as"' in text


def test_a_store_is_measured_once_and_only_a_plain_one() -> None:
    """Measuring twice changes nothing; a store that is wrapped otherwise is refused with the remedy."""

    class Other(ef.Store):
        pass

    with monitoring.measured(ef.Store("memory:"), "shop") as store:
        assert monitoring.measured(store) is store
        store.using(actor="ann").append(Placed("a"))
        assert Samples(monitoring.collector(store))("appends_total", store="shop", outcome="written") == 1
    with Other("memory:") as other, pytest.raises(InvalidInput, match="Measure the store first"):
        monitoring.measured(other)


def test_a_store_that_is_not_measured_has_nothing_around_its_engine() -> None:
    """Switched off, metrics cost nothing: no wrapper, no recorder, and the module is not loaded by the library."""
    with ef.Store("memory:") as store:
        measured = monitoring.measured(store)
        assert type(store) is ef.Store and store.engine is not measured._log.engine  # pyright: ignore[reportPrivateUsage]
        assert type(store._log.cache).__name__ == "StateCache"  # pyright: ignore[reportPrivateUsage]
        samples = Samples(monitoring.collector(store))
    assert samples("head_position") == 0
    assert "eventfold_appends_total" not in samples.names


def test_stores_of_a_collector_have_different_names() -> None:
    """Two stores are two series; the same name twice, no store, and another name than the measured one are refused."""
    with monitoring.measured(ef.Store("memory:"), "bank") as bank, ef.Store("memory:") as shop:
        samples = Samples(monitoring.collector(bank, shop=shop))
        assert samples("head_position", store="bank") == samples("head_position", store="shop") == 0
        assert samples.text.count("# TYPE eventfold_head_position ") == 1
        for wrong in (
            lambda: monitoring.collector(),
            lambda: monitoring.collector(shop, default=shop),
            lambda: monitoring.collector(other=bank),
        ):
            with pytest.raises(InvalidInput):
                wrong()


def test_a_registry_refuses_a_second_collector() -> None:
    """Two collectors in one registry would write each family twice, which is not the format of Prometheus."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    with ef.Store("memory:") as store:
        registry.register(monitoring.collector(store))
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(monitoring.collector(other=store))


@pytest.mark.parametrize("given", ["a" * 33, "\ud800" * 32, 5, b"a" * 32, RuntimeError("no tracer")])
def test_a_trace_id_that_cannot_be_had_or_shown_fails_neither_an_append_nor_a_scrape(given: Any) -> None:
    """The append was written, so it is acknowledged; the duration is counted without the trace."""
    from eventfold.monitoring.exposition import encode

    def trace_id() -> str | None:
        if isinstance(given, Exception):
            raise given
        return cast(str, given)

    with monitoring.measured(ef.Store("memory:"), trace_id=trace_id) as store:
        assert store.append(Placed("a")).last == 1
        text = encode(monitoring.collector(store), "application/openmetrics-text; version=1.0.0")[0].decode()
    assert 'eventfold_append_duration_seconds_count{store="default"} 1.0' in text
    assert "trace_id" not in text


@pytest.mark.parametrize("name", ["\ud800", "n" * 256, 5, None, b"shop"])
def test_a_name_that_cannot_be_a_label_is_refused_where_it_is_given(name: Any) -> None:
    """Not at each scrape, with an error of the writer."""
    with ef.Store("memory:") as store:
        with pytest.raises(InvalidInput, match="cannot be the name of a store"):
            monitoring.measured(store, name)
        if isinstance(name, str):
            with pytest.raises(InvalidInput, match="cannot be the name of a store"):
                monitoring.collector(**{name: store})


def test_a_read_model_is_shown_also_after_many_others_and_followers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on those that exist, read models first: no alert could fire for one that is not shown."""
    from eventfold.monitoring import state

    def evolve(self: Any, event: Placed) -> None:
        self.count += 1

    def shown() -> set[str]:
        return {each.labels[0] for each in reader.read() if each.metric == "projection_state"}

    monkeypatch.setattr(state, "MAX_NAMES", 3)
    with ef.Store("memory:") as store:
        store.append(Placed("a"))
        reader = state.StateReader(store.projections)
        for number in range(6):
            space = {"__module__": __name__, "__annotations__": {"order": str, "count": int}, "count": 0}
            model: Any = type(f"Model{number}", (ef.Projection,), {**space, "evolve": evolve})
            store.project(model)
            assert shown() == {f"model{number}"}
            store.projections.remove(model)


def test_a_collector_of_an_async_store_is_made_on_its_event_loop() -> None:
    """Elsewhere it says where, instead of an error of asyncio."""
    with pytest.raises(InvalidInput, match="outside of its event loop"):
        monitoring.collector(ef.AsyncStore("memory:"))


def test_the_state_of_a_store_without_the_extra_says_what_to_install() -> None:
    """Two sentences before anything is read, in the program `eventfold stats --metrics` too."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import eventfold as ef\n"
        "from eventfold.monitoring.collector import state_families\n"
        "try: state_families(ef.Store('memory:'), 'bank')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == (
        "MissingExtra Metrics need the package 'prometheus-client', which is not installed. "
        "Install the extra: pip install 'eventfold[metrics]'\n"
    )


def test_a_store_that_is_measured_under_two_names_is_counted_under_both() -> None:
    """Neither shows 0 appends while there are some; a recorder that is no longer used is not kept."""
    with ef.Store("memory:") as plain:
        one, two = monitoring.measured(plain, "one"), monitoring.measured(plain, "two")
        one.append(Placed("a"))
        two.append(Placed("b"))
        samples = Samples(monitoring.collector(one, two))
        assert [samples("appends_total", store=each, outcome="written") for each in ("one", "two")] == [2, 2]
        for number in range(100):
            monitoring.measured(plain, f"store-{number}")
        gc.collect()
        monitoring.measured(plain, "last")
        log: Any = plain.projections.log
        assert len(log.appender.engine._recorders) <= 4


def test_the_verification_of_a_read_model_that_was_removed_is_not_shown() -> None:
    """It would be reported as old forever, since it cannot be verified again."""
    from eventfold.monitoring.state import StateReader

    with ef.Store("memory:") as store:
        store.append(Placed("a"))
        store.project(Sold)
        store.projections.record(*store.projections.verify(), store.projections.verify_log())
        reader = StateReader(store.projections)
        shown = {each.labels[0] for each in reader.read() if each.metric == "verify_timestamp_seconds"}
        assert "log" in shown and len(shown) > 1
        store.projections.remove(Sold)
        for each in (reader, StateReader(store.projections)):
            assert {one.labels for one in each.read() if one.metric.startswith("verify_")} == {("log",)}


def test_the_time_of_the_last_backup_is_shown_once_it_is_recorded(tmp_path: Path) -> None:
    """`eventfold backup --record` notes it; one without the flag is not shown, and without one nothing is."""
    from eventfold.monitoring.state import StateReader
    from tests.cli.commands import run as eventfold

    path = str(tmp_path / "shop.db")

    def shown(store: ef.Store) -> list[float]:
        reader = StateReader(store.projections)
        return [each.value for each in reader.read() if each.metric == "backup_timestamp_seconds"]

    with ef.Store(path) as store:
        store.append(Placed("a"))
        assert eventfold("backup", path, str(tmp_path / "1.db")).code == 0
        assert shown(store) == []
        for number in (2, 3):
            assert eventfold("backup", path, str(tmp_path / f"{number}.db"), "--record").code == 0
        noted = [each for each in store.read() if each.type == "$backed-up"]
        assert [each.event.head for each in noted] == [1, 2]
        assert shown(store) == [noted[-1].time.timestamp()]
