"""What a call claims is released when the call ends, also where an exception prevents the library from releasing it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.mutex import Mutex
from tests.interrupts.sweep import DEADLINE_S, Seat, Seated, sit
from tests.support.servers.postgres import shared


def in_time(work: Callable[[], Any]) -> Any:
    """Run work in another thread within the deadline. Returns its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert results, "it hangs, or failed"
    return results[0]


@pytest.mark.parametrize("method", ["claim", "release", "leave", "enqueue"])
def test_an_exception_after_a_claim_leaves_nothing_claimed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt ends the call right after a step that claims: the next decision over the state succeeds."""
    store = ef.Store("memory:")
    pipeline = store.projections.log.pipeline
    real = getattr(pipeline, method)

    def interrupted(*args: Any) -> Any:
        monkeypatch.undo()
        real(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, method, interrupted)
    with pytest.raises(KeyboardInterrupt) as raised_error:  # keeps the traceback, and every frame in it, alive
        store.decide(sit, Seat("a"), "first")
    assert in_time(lambda: store.decide(sit, Seat("a"), "second").receipt.last)
    assert raised_error.type is KeyboardInterrupt


@pytest.mark.parametrize("method", ["claim", "release", "leave"])
def test_an_exception_instead_of_a_step_leaves_nothing_claimed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step itself does not run, so nothing is released by it."""
    store = ef.Store("memory:")

    def interrupted(*args: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(store.projections.log.pipeline, method, interrupted)
    with pytest.raises(KeyboardInterrupt) as raised_error:
        store.decide(sit, Seat("a"), "first")
    assert in_time(lambda: store.decide(sit, Seat("a"), "second").receipt.last)
    assert raised_error.type is KeyboardInterrupt


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", ["evolve", "function"])
def test_an_exit_in_the_users_code_leaves_nothing_claimed(error: type[BaseException], place: str) -> None:
    """`evolve` runs while its state is claimed, the decision between claim and enqueueing: either may end the call."""
    store, ending = ef.Store("memory:"), [place]

    class Strict(ef.State):
        """A state that ends the call once."""

        seat: ef.Tag
        taken: int = 0

        def evolve(self, event: Seated) -> None:
            """Add one, or end the call."""
            if "evolve" in ending:
                ending.clear()
                raise error
            self.taken += 1

    def decide(seat: Strict) -> Seated:
        if "function" in ending:
            ending.clear()
            raise error
        return Seated(seat.seat, str(seat.taken))

    store.append(Seated("a", "0"))
    with pytest.raises(error) as raised_error:
        store.decide(decide, Strict("a"))
    assert in_time(lambda: store.decide(decide, Strict("a")).events[0].event.by) == "1"
    assert raised_error.type is error


def test_a_mutex_is_free_after_an_exception_and_excludes_meanwhile() -> None:
    """Any error in it releases it; until then no other caller gets in; a RuntimeError is raised to its own caller."""
    mutex, inside = Mutex(), threading.Event()
    may_end = threading.Event()

    def hold() -> None:
        inside.set()
        assert may_end.wait(DEADLINE_S)

    def fail(error: BaseException) -> None:
        raise error

    for error in (KeyboardInterrupt(), RuntimeError("a bug"), RecursionError()):
        with pytest.raises(type(error)):
            mutex.run(fail, error)
        with pytest.raises(type(error)):
            mutex.attempt(fail, error)
    thread = threading.Thread(target=mutex.run, args=(hold,), daemon=True)
    thread.start()
    assert inside.wait(DEADLINE_S)
    assert not mutex.attempt(fail, ZeroDivisionError())
    may_end.set()
    thread.join(DEADLINE_S)
    assert mutex.run(str) == ""


@pytest.mark.parametrize("step", ["_idle_or_new", "release", "_free"])
def test_connections_of_calls_that_an_exception_ended_are_lent_again(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step an exception replaces, the next calls get a connection, also while the exceptions are alive."""
    with ef.Store(shared().url(), schema=f"t{uuid4().hex}", patience=1.0) as store:
        pool = store.engine._servers.writer_pool  # type: ignore[attr-defined]

        def interrupted(*args: Any) -> None:
            raise KeyboardInterrupt

        errors: list[KeyboardInterrupt] = []
        for number in range(2 * pool._size):
            with monkeypatch.context() as patched:
                patched.setattr(pool, step, interrupted)
                with pytest.raises(KeyboardInterrupt) as raised:
                    store.append(Seated("a", f"interrupted {number}"))
            errors.append(raised.value)
        links = [run(pool.acquire()) for _ in range(pool._size)]
        assert all(link.is_usable() for link in links)
        for link in links:
            run(pool.release(link))
        assert store.append(Seated("a", "first")).event_ids
        assert len(errors) == 2 * pool._size


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # psycopg: not closed
@pytest.mark.parametrize("is_given_back", [False, True])
def test_connections_without_references_are_lent_again(is_given_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for a connection that outlives the call that takes it, such as a lock's."""
    with ef.Store(shared().url(), schema=f"t{uuid4().hex}", patience=1.0) as store:
        pool = store.engine._servers.writer_pool  # type: ignore[attr-defined]

        def interrupted(*args: Any) -> None:
            raise KeyboardInterrupt

        def use() -> None:
            link = run(pool.acquire())
            if is_given_back:
                with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                    patched.setattr(pool, "_free", interrupted)
                    run(pool.release(link))

        for _ in range(2 * pool._size):
            use()
        links = [run(pool.acquire()) for _ in range(pool._size)]
        for link in links:
            run(pool.release(link))
        assert store.append(Seated("a", "first")).event_ids


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # psycopg: not closed
def test_a_connection_without_references_closes_at_once() -> None:
    """It closes without the garbage collector: a series of exceptions would exhaust the server's connections first."""
    with ef.Store(shared().url(), schema=f"t{uuid4().hex}", patience=1.0) as store:
        pool = store.engine._servers.writer_pool  # type: ignore[attr-defined]
        link = run(pool.acquire())
        gone = weakref.ref(link)
        gc.disable()
        try:
            del link
            assert gone() is None
        finally:
            gc.enable()
