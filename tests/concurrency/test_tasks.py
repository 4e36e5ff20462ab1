"""Tasks at once: one winner per contested key, nothing lost; and what holds for a cancelled caller."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import AsyncOnce, LoopGroupCommit
from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.core.query import Query
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import StoreClosed, StoreFull
from eventfold.log.append import submit
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.testing import Faulty
from tests.concurrency.conftest import every_engine
from tests.concurrency.crowd import fine, together
from tests.concurrency.events import Counter, Taken, Written, contiguous, count_up, each_once, seat

Address = tuple[str, dict[str, Any]]
TASKS = 64


def asyncly(main: Callable[[], Awaitable[Any]], timeout: float = 60.0) -> Any:
    """Run a coroutine on a loop of its own, for at most `timeout` seconds."""

    async def limited() -> Any:
        async with asyncio.timeout(timeout):
            return await main()

    return asyncio.run(limited())


async def caught(awaitable: Awaitable[Any]) -> Any:
    """Return a result, or the library's error in its place."""
    try:
        return await awaitable
    except ef.EventfoldError as error:
        return error


# ------------------------------------------------------------------------------------------ every engine


@every_engine
def test_one_task_wins_each_seat(address: Address) -> None:
    """Of 64 tasks that append under the same condition exactly one wins each seat."""
    url, options = address

    async def main() -> None:
        async with ef.AsyncStore(url, **options) as store:
            for each in range(4):
                outcomes = await asyncio.gather(
                    *[caught(store.append(Taken(each, f"t-{n}"), unless=seat(each))) for n in range(TASKS)]
                )
                assert sum(isinstance(outcome, Receipt) for outcome in outcomes) == 1
                assert sum(isinstance(outcome, ef.AppendConflict) for outcome in outcomes) == TASKS - 1
            assert await store.head() == 4

    asyncly(main)


@every_engine
def test_no_append_of_any_task_is_lost(address: Address) -> None:
    """A thousand appends by 64 tasks are all acknowledged and exist, in the order of each task."""
    url, options = address
    each = 16

    async def main() -> None:
        async with ef.AsyncStore(url, **options) as store:

            async def write(name: str) -> list[Receipt]:
                return [await store.append(Written(name, n)) for n in range(each)]

            receipts = await asyncio.gather(*[write(f"t-{n}") for n in range(TASKS)])
            events = [recorded async for recorded in store.read()]
            assert contiguous(events)
            assert each_once(events, [f"t-{n}" for n in range(TASKS)], each)
            for number, own_receipts in enumerate(receipts):
                assert [events[r.first - 1].event for r in own_receipts] == [
                    Written(f"t-{number}", n) for n in range(each)
                ]

    asyncly(main)


@every_engine
def test_tasks_count_every_number_once(address: Address) -> None:
    """Tasks that count one counter up by decisions leave 1, 2, 3 … without gap or duplicate."""
    url, options = address

    async def main() -> None:
        async with ef.AsyncStore(url, **options) as store:
            view = store.using(attempts=10_000)

            async def count(name: str) -> list[int]:
                return [(await view.decide(count_up, Counter("c"), name)).events[0].event.value for _ in range(4)]

            values = await asyncio.gather(*[count(f"t-{n}") for n in range(8)])
            assert sorted(value for found in values for value in found) == list(range(1, 33))
            assert (await store.state(Counter("c"))).value == 32

    asyncly(main)


@every_engine
def test_a_task_that_follows_sees_commits_in_order(address: Address) -> None:
    """A follower in a task sees 1, 2, 3 … while others write, and ends when it is closed."""
    url, options = address

    async def main() -> None:
        async with ef.AsyncStore(url, **options) as store:
            found: list[int] = []
            follower = store.follow()

            async def follow() -> None:
                async for recorded in follower:
                    found.append(recorded.position)
                    if len(found) == 200:
                        follower.close()

            following = asyncio.create_task(follow())
            await asyncio.gather(*[store.append(Written(f"t-{n}", 0), Written(f"t-{n}", 1)) for n in range(100)])
            await following
            assert found == list(range(1, 201))

    asyncly(main)


@every_engine
def test_loops_in_several_threads_share_a_store(address: Address) -> None:
    """One AsyncStore may be used from several event loops, each in its thread: each append gets its own outcome."""
    url, options = address
    store = ef.AsyncStore(url, **options)

    async def write(name: str) -> int:
        receipts = await asyncio.gather(*[store.append(Written(name, n)) for n in range(20)])
        return len(receipts)

    if address[0].startswith(("postgres", "nats")):
        asyncly(store.open)  # a connection belongs to the loop it was opened on
        asyncly(store.close)
        return
    try:
        assert fine(together([lambda n=n: asyncly(lambda: write(f"t-{n}")) for n in range(4)])) == [20] * 4
        assert asyncly(store.head) == 80
    finally:
        asyncly(store.close)


def test_an_async_once_makes_its_value_once() -> None:
    """The first caller makes the value; a failure is raised to that caller, and the next one tries again."""
    made: list[int] = []
    once: AsyncOnce[int] = AsyncOnce()

    async def make() -> int:
        await asyncio.sleep(0.01)
        made.append(1)
        if len(made) == 1:
            raise ZeroDivisionError
        return len(made)

    async def main() -> list[Any]:
        return await asyncio.gather(*[_outcome_of(once.get(make)) for _ in range(5)])

    results = [each for found in fine(together([lambda: asyncly(main) for _ in range(4)])) for each in found]
    assert len(made) == 2
    assert sum(isinstance(each, ZeroDivisionError) for each in results) == 1
    assert results.count(2) == 19


# ------------------------------------------------------------------------------------------ cancelled callers


@asynccontextmanager
async def held() -> AsyncIterator[tuple[ef.AsyncStore, Faulty, Any, asyncio.Task[Receipt]]]:
    """A store on a writer thread, with one append that a gate holds inside its commit."""
    faults = Faulty(MemoryEngine(), blocks=True)
    gate = faults.hold()
    async with ef.AsyncStore(faults) as store:
        first = asyncio.create_task(store.append(Written("first", 0)))
        assert await asyncio.to_thread(gate.arrived)
        try:
            yield store, faults, gate, first
        finally:
            gate.open()


async def writers(store: ef.AsyncStore) -> list[str]:
    """Return the writers of all events, in order."""
    return [recorded.event.writer async for recorded in store.read()]


def test_an_append_cancelled_before_its_turn_has_written_nothing() -> None:
    """A caller cancelled while its append waits for its turn gets a plain CancelledError, and nothing is written."""

    async def main() -> None:
        async with held() as (store, _, gate, first):
            waiting = [asyncio.create_task(store.append(Written(f"t-{n}", 0))) for n in range(3)]
            await asyncio.sleep(0.02)
            waiting[1].cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await waiting[1]
            assert type(cancelled.value) is asyncio.CancelledError
            gate.open()
            await asyncio.gather(first, waiting[0], waiting[2])
            assert await writers(store) == ["first", "t-0", "t-2"]

    asyncly(main)


def test_an_append_cancelled_inside_its_commit_is_a_plain_cancellation() -> None:
    """A caller cancelled while its append is being committed gets asyncio's own error. Here the append is written."""

    async def main() -> None:
        async with held() as (store, _, gate, first):
            first.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await first
            assert type(cancelled.value) is asyncio.CancelledError
            assert first.cancelled()
            gate.open()
            await store.append(Written("second", 0))
            assert await writers(store) == ["first", "second"]

    asyncly(main)


def test_a_cancelled_caller_does_no_harm_to_others_in_its_commit() -> None:
    """The commit goes on for the others in it, whichever of them is cancelled."""

    async def main() -> None:
        async with held() as (store, faults, gate, first):
            second = faults.hold()
            together = [asyncio.create_task(store.append(Written(f"t-{n}", 0))) for n in range(4)]
            await asyncio.sleep(0.02)
            gate.open()
            assert await asyncio.to_thread(second.arrived)
            together[0].cancel()
            together[2].cancel()
            await asyncio.sleep(0.02)
            second.open()
            kinds = [type(await _outcome_of(task)) for task in together]
            assert kinds == [asyncio.CancelledError, Receipt, asyncio.CancelledError, Receipt]
            await first
            assert await writers(store) == ["first", "t-0", "t-1", "t-2", "t-3"]

    asyncly(main)


def test_a_timeout_in_the_middle_of_a_commit_is_a_timeout() -> None:
    """`asyncio.timeout` and `wait_for` raise TimeoutError; repeating the same ids shows that the append was written."""

    async def main() -> None:
        async with held() as (store, faults, gate, first):
            gate.open()
            await first
            for limit in (under_timeout, asyncio.wait_for):
                gate = faults.hold()
                event = NewEvent(new_id(), "races.written", 1, b'{"writer":"slow","number":0}', ())
                with pytest.raises(TimeoutError):
                    await limit(store.append_encoded(event), 1.0)  # its commit has begun by then
                assert await asyncio.to_thread(gate.arrived)
                gate.open()
                receipt = await store.append_encoded(event)
                assert receipt.repeated
            assert await store.head() == 3

    asyncly(main)


async def under_timeout(work: Coroutine[Any, Any, Any], seconds: float) -> None:
    """Await a coroutine with a time limit, as web handlers do."""
    async with asyncio.timeout(seconds):
        await work


def test_a_timeout_is_a_cancellation() -> None:
    """`asyncio.wait_for` around an append ends in time, and the append is written as a whole or not."""

    async def main() -> None:
        async with held() as (store, _, gate, first):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.append(Written("late", 0), Written("late", 1)), 0.05)
            assert time.monotonic() - began < 40
            gate.open()
            await first
            assert await writers(store) == ["first"]

    asyncly(main)


def test_a_cancelled_decision_is_a_cancelled_append() -> None:
    """`decide` is cancelled as its append is: a plain cancellation inside a commit, and states stay correct."""

    async def main() -> None:
        async with held() as (store, faults, gate, first):
            second = faults.hold()
            deciding = asyncio.create_task(store.decide(count_up, Counter("c"), "me"))
            await asyncio.sleep(0.02)
            gate.open()
            await first
            assert await asyncio.to_thread(second.arrived)
            deciding.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await deciding
            assert type(cancelled.value) is asyncio.CancelledError
            second.open()
            done = await store.using(attempts=5).decide(count_up, Counter("c"), "me")
            assert (done.events[0].event.value, (await store.state(Counter("c"))).value) == (2, 2)

    asyncly(main)


def test_a_group_that_fails_cancels_its_appends() -> None:
    """In a TaskGroup the failure of one member cancels appends that wait; those have written nothing."""

    async def main() -> None:
        async with held() as (store, _, gate, first):

            async def failing() -> None:
                await asyncio.sleep(0.02)
                raise ZeroDivisionError

            with pytest.raises(ExceptionGroup) as failed:
                async with asyncio.TaskGroup() as group:
                    group.create_task(store.append(Written("member", 0)))
                    group.create_task(failing())
            assert [type(error) for error in failed.value.exceptions] == [ZeroDivisionError]
            gate.open()
            await first
            assert await writers(store) == ["first"]

    asyncly(main)


def test_closing_refuses_appends_that_still_wait() -> None:
    """Closing a store finishes the current commit; appends that still wait raise StoreClosed and write nothing."""

    async def main() -> None:
        async with held() as (store, faults, gate, first):
            waiting = asyncio.create_task(caught(store.append(Written("waiting", 0))))
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0.02)
            gate.open()
            assert isinstance(await first, Receipt)
            outcome = await waiting
            await closing
            page = await faults.inner.read(Query(), _everything())
            written = [event.type for event in page.events]
            assert len(written) == (2 if isinstance(outcome, Receipt) else 1)
            assert isinstance(outcome, (Receipt, StoreClosed))
            with pytest.raises(StoreClosed):
                await store.append(Written("after", 0))

    asyncly(main)


def _everything() -> Any:
    from eventfold.ports.messages import Span

    return Span()


@pytest.mark.parametrize(
    "error", [StoreFull("Full.", "Free some space."), ZeroDivisionError(), KeyboardInterrupt()], ids=repr
)
def test_a_writer_that_raises_leaves_no_task_waiting(error: BaseException) -> None:
    """Whatever a commit raises on the writer thread reaches every task in it, and the next append succeeds."""

    async def main() -> None:
        async with held() as (store, faults, gate, first):
            faults.fail_before(error)
            tasks = [asyncio.create_task(_outcome_of(store.append(Written(f"t-{n}", 0)))) for n in range(6)]
            await asyncio.sleep(0.02)
            gate.open()
            await first
            assert {type(each) for each in await asyncio.gather(*tasks)} == {type(error)}
            assert isinstance(await store.append(Written("after", 0)), Receipt)

    asyncly(main)


async def _outcome_of(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except BaseException as error:  # noqa: BLE001 (handed back to the test)
        return error


def test_a_loop_is_not_held_up_by_a_slow_writer() -> None:
    """While a commit is slow, the event loop goes on."""

    async def main() -> None:
        async with held() as (store, _, gate, first):
            for _ in range(30):  # a loop that a commit blocks would never open its gate
                await asyncio.sleep(0.001)
            assert not first.done()
            assert await store.head() == 0
            gate.open()
            await first

    asyncly(main)


def test_tasks_of_one_turn_share_a_commit() -> None:
    """Appends made in one turn of the loop are one commit."""

    async def main() -> None:
        faults = Faulty(MemoryEngine(), blocks=True)
        async with ef.AsyncStore(faults) as store:
            await asyncio.gather(*[store.append(Written(f"t-{n}", 0)) for n in range(200)])
        assert len(faults.commits) <= 3
        assert sum(faults.commits) == 200

    asyncly(main)


# ------------------------------------------------------------------------------------------ engines that suspend


class Suspending:
    """An engine that waits on its loop inside a commit."""

    def __init__(self) -> None:
        self.inner = MemoryEngine()
        self.gate = asyncio.Event()
        self.arrived = asyncio.Event()
        self.commits: list[int] = []
        self.error: BaseException | None = None
        self.miscount = False

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        self.commits.append(len(requests))
        self.arrived.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        outcomes = await self.inner.append_many(requests)
        return outcomes[1:] if self.miscount else outcomes


def request() -> AppendRequest:
    """Return a request with one small event."""
    return AppendRequest((NewEvent(new_id(), "races.written", 1, b"{}", ()),))


def test_an_engine_that_suspends_is_combined_on_its_loop() -> None:
    """While one batch is committed the next one gathers; a cancelled caller leaves its batch, and the others go on."""

    async def main() -> None:
        engine = Suspending()
        combiner = LoopGroupCommit(engine)
        first = asyncio.create_task(submit(combiner, request()))
        await engine.arrived.wait()
        rest = [asyncio.create_task(submit(combiner, request())) for _ in range(10)]
        await asyncio.sleep(0)
        rest[3].cancel()
        first.cancel()
        with pytest.raises(asyncio.CancelledError) as waiting:
            await rest[3]
        with pytest.raises(asyncio.CancelledError) as committing:
            await first
        assert type(waiting.value) is type(committing.value) is asyncio.CancelledError
        engine.gate.set()
        outcomes = await asyncio.gather(*[task for n, task in enumerate(rest) if n != 3])
        assert all(isinstance(outcome, Receipt) for outcome in outcomes)
        assert engine.commits == [1, 9]
        assert (await engine.inner.head()).position == 10

    asyncly(main)


@pytest.mark.parametrize("error", [StoreFull("Full.", "Free some space."), ZeroDivisionError(), None], ids=repr)
def test_an_engine_that_suspends_and_fails_leaves_no_one_waiting(error: Exception | None) -> None:
    """Whatever it raises, or miscounts, every caller of the batch gets the error; the next batch succeeds."""

    async def main() -> None:
        engine = Suspending()
        combiner = LoopGroupCommit(engine)
        engine.error, engine.miscount = error, error is None
        tasks = [asyncio.create_task(_outcome_of(submit(combiner, request()))) for _ in range(5)]
        await engine.arrived.wait()
        engine.gate.set()
        outcomes = await asyncio.gather(*tasks)
        assert {type(each) for each in outcomes} == {RuntimeError if error is None else type(error)}
        engine.error, engine.miscount = None, False
        assert isinstance(await submit(combiner, request()), Receipt)

    asyncly(main)


def test_followers_are_woken_from_threads_and_tasks() -> None:
    """A follower that waits in a task is woken by a commit of a thread, at once."""
    engine = MemoryEngine()

    async def main() -> None:
        async with ef.AsyncStore(engine) as store:
            follower = store.follow()
            following = asyncio.create_task(anext(aiter(follower.pages())))
            await asyncio.sleep(0.02)
            thread = threading.Thread(target=ef.Store(engine).append, args=(Written("thread", 0),))
            thread.start()
            (recorded,) = await following
            assert recorded.position == 1
            follower.close()
            thread.join(60)

    asyncly(main)
