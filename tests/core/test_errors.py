"""Errors: one root class, a code, fields, two sentences; they survive pickling and copying."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle

import pytest

from eventfold import errors
from eventfold.errors import AppendConflict, AppendUnconfirmed, EventfoldError, InvalidEvent

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, EventfoldError)]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_an_error_carries_its_facts(cls: type[EventfoldError]) -> None:
    """Every error has what happened, what to do now, and its facts by name."""
    error = cls("It happened.", "Do this now.", position=7, type="x")
    assert (error.what, error.remedy, error.fields) == ("It happened.", "Do this now.", {"position": 7, "type": "x"})
    assert str(error) == "It happened. Do this now."


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling_and_copying(cls: type[EventfoldError]) -> None:
    """Process pools pickle errors: class, sentences, fields and code come back."""
    error = cls("It happened.", "Do this now.", position=7)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(twin), str(twin), twin.fields, twin.code) == (cls, str(error), {"position": 7}, cls.code)


def test_conflict_and_lost_answer_are_different() -> None:
    """A conflict and a lost reply: a handler that catches one does not catch the other."""
    assert not issubclass(AppendConflict, AppendUnconfirmed)
    assert not issubclass(AppendUnconfirmed, AppendConflict)


def test_no_error_of_the_library_is_a_cancellation() -> None:
    """`except EventfoldError` never swallows the cancellation of a task."""
    assert not [cls for cls in ALL if issubclass(cls, asyncio.CancelledError)]


def test_the_name_of_the_removed_error_says_what_to_write() -> None:
    """`errors.AppendCancelled` is refused, naming what an append raises instead."""
    with pytest.raises(AttributeError, match=r"except asyncio\.CancelledError.*same event ids"):
        _ = errors.AppendCancelled  # type: ignore[attr-defined]


def test_mistakes_of_the_caller_share_a_parent() -> None:
    """A caller that answers `bad request` catches InvalidInput, and no failure of the store."""
    assert issubclass(InvalidEvent, errors.InvalidInput)
    assert not issubclass(errors.StoreUnavailable, errors.InvalidInput)
    assert not issubclass(errors.Unreadable, errors.InvalidInput)
