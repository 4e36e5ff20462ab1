"""An exception raised by a signal handler inside a user's class is not taken for an error of that class."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import UndecodableEvent

interrupting: list[bool] = [False]
failing: list[bool] = [False]


class OutOfTime(Exception):
    """The exception of the handler: as in many programs, it is an Exception, not only a BaseException."""


class Checked(ef.Event, type="signals-checked"):
    """A class that checks itself, and takes its time."""

    n: int = 0

    def __post_init__(self) -> None:
        """Called whenever one is made, so also when one is read."""
        if failing[0]:
            raise OutOfTime
        if interrupting[0]:
            signal.raise_signal(signal.SIGUSR1)


class Total(ef.State):
    """How much it was."""

    sum: int = 0

    def evolve(self, event: Checked) -> None:
        """Take it in."""
        self.sum += event.n


def handler(number: int, frame: Any) -> None:
    """End whatever is going on."""
    interrupting[0] = False
    raise OutOfTime


class Handler:
    """The same as an object and as a method."""

    def __call__(self, number: int, frame: Any) -> None:
        """See handler."""
        handler(number, frame)

    def method(self, number: int, frame: Any) -> None:
        """See handler."""
        handler(number, frame)


@pytest.fixture(params=["function", "partial", "object", "method"])
def installed(request: pytest.FixtureRequest) -> Iterator[None]:
    """A handler of each kind, for a signal that nothing else here uses."""
    kinds: dict[str, Callable[..., Any]] = {
        "function": handler,
        "partial": partial(handler),
        "object": Handler(),
        "method": Handler().method,
    }
    before = signal.signal(signal.SIGUSR1, kinds[request.param])
    yield
    signal.signal(signal.SIGUSR1, before)
    interrupting[0] = False


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("place", ["memory:", "signals.db"])
def test_a_handlers_exception_passes_through_reading_and_writing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, folding, appending: what the handler raised comes out, and the store goes on."""
    monkeypatch.chdir(tmp_path)
    with ef.Store(place) as store:
        store.append(Checked(1), Checked(2))
        event = Checked(4)
        for work in (
            lambda: list(store.read()),
            lambda: store.state(Total()),
            lambda: store.append(event),
        ):
            interrupting[0] = True
            with pytest.raises(OutOfTime):
                work()
        assert (store.state(Total()).sum, store.head()) == (3, 2)


def test_an_exception_of_the_class_itself_is_its_error() -> None:
    """It has the same type, but no signal handler raised it: the event does not fit its class."""
    with ef.Store("memory:") as store:
        store.append(Checked(1))
        failing[0] = True
        try:
            with pytest.raises(UndecodableEvent):
                list(store.read())
        finally:
            failing[0] = False
