"""Errors act: one root, a code, fields, two sentences; they survive pickling and copying."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle

import pytest

from eventfold import errors
from eventfold.errors import AppendCancelled, AppendConflict, AppendUnconfirmed, EventfoldError, InvalidEvent

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, EventfoldError)]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_an_error_carries_its_facts(cls: type[EventfoldError]) -> None:
    """Every error has what happened, what to do now, and its facts by name."""
    error = cls("It happened.", "Do this now.", position=7, type="x")
    assert (error.what, error.now, error.fields) == ("It happened.", "Do this now.", {"position": 7, "type": "x"})
    assert str(error) == "It happened. Do this now."


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling_and_copying(cls: type[EventfoldError]) -> None:
    """Process pools pickle errors: class, sentences, fields and code come back."""
    error = cls("It happened.", "Do this now.", position=7)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(twin), str(twin), twin.fields, twin.code) == (cls, str(error), {"position": 7}, cls.code)


def test_conflict_and_lost_answer_are_different() -> None:
    """Someone else wrote, and the answer was lost: whoever catches one does not catch the other."""
    assert not issubclass(AppendConflict, AppendUnconfirmed)
    assert not issubclass(AppendUnconfirmed, AppendConflict)


def test_a_cancelled_append_is_both() -> None:
    """AppendCancelled is an AppendUnconfirmed to whoever asks, and a cancellation to asyncio."""
    assert issubclass(AppendCancelled, asyncio.CancelledError)
    assert issubclass(AppendCancelled, AppendUnconfirmed)


def test_asyncio_treats_a_cancelled_append_as_a_cancellation() -> None:
    """A task that ends with AppendCancelled counts as cancelled, and a task group does not take it for a failure."""

    async def appending() -> None:
        raise AppendCancelled("The caller was cancelled.", "Read before giving up on it.")

    async def main() -> tuple[bool, bool]:
        task = asyncio.ensure_future(appending())
        await asyncio.wait([task])
        async with asyncio.TaskGroup() as group:
            member = group.create_task(appending())
        return task.cancelled(), member.cancelled()

    assert asyncio.run(main()) == (True, True)


def test_mistakes_of_the_caller_share_a_parent() -> None:
    """Whoever wants to answer `bad request` catches InvalidInput, and nothing of the store's troubles."""
    assert issubclass(InvalidEvent, errors.InvalidInput)
    assert not issubclass(errors.StoreUnavailable, errors.InvalidInput)
    assert not issubclass(errors.Unreadable, errors.InvalidInput)
