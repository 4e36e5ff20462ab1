"""A failure after a successful COMMIT raises AppendUnconfirmed; no error says that nothing was written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.engines.sqlite import checkpoint
from eventfold.errors import AppendUnconfirmed
from eventfold.ports.messages import AppendRequest
from tests.engines.sqlite.noted import engine_of, noted

STEPS: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "publishing names": lambda engine: (engine._writer.names.types, "commit"),
    "looking whether the file is in its place": lambda engine: (engine._file.presence, "is_in_place"),
    "noting the head": lambda engine: (engine._writer.head, "record_commit"),
    "the checkpoint": lambda engine: (engine._writer.checkpoint, "run"),
    "giving the lock back": lambda engine: (engine._file.lock, "release"),
    "giving the connection back": lambda engine: (engine._file.pool, "return_writer"),
}
ERRORS = [OSError(28, "No space left on device"), apsw.IOError("disk I/O error"), RuntimeError("a mistake")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", STEPS)
def test_a_fault_after_the_commit_is_unconfirmed(
    path: str, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception
) -> None:
    """AppendUnconfirmed is raised, the event exists, and repeating the identical append is recognised."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 0)
    with ef.Store(path) as store:
        store.append(noted(0))
        engine = engine_of(store)
        append_request = AppendRequest((NewEvent(new_id(), "fault.new", 1, b"{}", ("a:1",)),))
        holder, name = STEPS[step](engine)

        def fail(*_: Any) -> None:
            raise error

        with monkeypatch.context() as planted:
            planted.setattr(holder, name, fail)
            with pytest.raises(AppendUnconfirmed):
                run(engine.append_many([append_request]))
        assert store.head() == 2
        (again,) = run(engine.append_many([append_request]))
        assert isinstance(again, Receipt)
        assert (again.first, again.repeated, store.head()) == (2, True, 2)
        assert store.append(noted(1)).first == 3


def test_a_fault_before_the_commit_is_raised_as_it_is(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was written then, and the error says so."""
    with ef.Store(path) as store:
        store.append(noted(0))
        engine = engine_of(store)

        def fail(*_: Any) -> None:
            raise apsw.IOError("disk I/O error")

        with monkeypatch.context() as planted:
            planted.setattr(engine._writer.last_commit, "read", fail)
            with pytest.raises(ef.errors.StoreUnavailable):
                run(engine.append_many([AppendRequest((NewEvent(new_id(), "fault.new", 1, b"{}", ()),))]))
        assert store.head() == 1
