"""An evolve that changes the key of its own row is refused like any other failure, however events are batched."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.errors import InlineFailed, InvalidProjection, ProjectionStopped


class Opened(ef.Event, type="changed-keys.opened"):
    """An account was opened."""

    account: ef.Tag


class Renamed(ef.Event, type="row-taken-elsewhere"):
    """An account was renamed."""

    account: ef.Tag
    to: str


class Stopping(ef.Projection, name="changed_keys_stopping", attempts=1):
    """A read model that changes the key of its row, and stops there."""

    account: str
    events: int = 0

    def evolve(self, event: Opened | Renamed) -> None:
        """Count; take the new name."""
        self.events += 1
        if isinstance(event, Renamed):
            self.account = event.to


class Parking(Stopping, name="changed_keys_parking", on_error="park", attempts=1):
    """The same, but it parks the event."""


class Elsewhere(Stopping, name="changed_keys_elsewhere", attempts=1, target="memory:"):
    """The same, in another database than the log's."""


EVENTS = (Opened("a"), Opened("b"), Opened("a"), Renamed("b", "c"), Opened("b"), Opened("d"))


def write(store: ef.Store, grouped: str) -> None:
    """Write the events in one append, in one each, or the failing one by itself."""
    if grouped == "together":
        store.append(*EVENTS)
    elif grouped == "alone":
        for event in EVENTS:
            store.append(event)
    else:
        store.append(*EVENTS[:3])
        store.append(EVENTS[3])
        store.append(*EVENTS[4:])


@pytest.mark.parametrize("grouped", ["together", "alone", "in three"])
def test_the_read_model_stops_at_the_event_and_has_no_second_row(either: ef.Store, grouped: str) -> None:
    """The error names the read model, both keys and the position; nothing is written under the other key."""
    write(either, grouped)
    for model in (Stopping, Elsewhere):
        with pytest.raises(ProjectionStopped) as caught:
            either.project(model)
        assert caught.value.fields["position"] == 4
        assert "found by the key 'b', but has the key 'c'" in str(caught.value)
        assert "Stopped at event 4" in either.projections.status(model)[0].sentence
        assert "c" not in {row.account for row in either.rows(model)}


@pytest.mark.parametrize("grouped", ["together", "alone"])
def test_a_read_model_that_parks_goes_on_with_the_other_keys(either: ef.Store, grouped: str) -> None:
    """The failing event is parked, later ones of its key after it; others are folded."""
    write(either, grouped)
    either.project(Parking)
    assert [entry.position for entry in either.projections.parked(Parking)] == [4, 5]
    assert {row.account: row.events for row in either.rows(Parking)} == {"a": 2, "b": 1, "d": 1}


def test_a_row_read_back_from_its_table_is_looked_at_as_well(store: ef.Store) -> None:
    """The row was written by an earlier call, so it is loaded before it is changed."""
    store.append(Renamed("b", "b"))
    store.project(Stopping)
    store.append(Renamed("b", "c"))
    with pytest.raises(ProjectionStopped, match="has the key 'c'"):
        store.project(Stopping)
    assert [row.account for row in store.rows(Stopping)] == ["b"]


def test_a_view_names_the_event(store: ef.Store) -> None:
    """Rows that are folded in memory only are refused with the position."""
    write(store, "alone")
    with pytest.raises(InvalidProjection, match=r"Event 4 .*has the key 'c'") as caught:
        store.view(Stopping)
    assert caught.value.fields["position"] == 4
    assert len(store.view(Stopping, at=3)) == 2


def test_an_append_that_would_change_the_key_of_an_inline_row_is_refused(shared_url: str) -> None:
    """Nothing of that append is written; concurrent appends of other callers are."""
    with ef.Store(shared_url, inline=[Stopping]) as store:
        store.append(Renamed("b", "b"))
        with pytest.raises(InlineFailed, match="has the key 'c'"):
            store.append(Opened("a"), Renamed("b", "c"))
        store.append(Opened("b"))
        assert {row.account: row.events for row in store.rows(Stopping)} == {"b": 2}
        assert store.head() == 2


class Checked(ef.Projection, name="changed_keys_checked", attempts=1, on_error="park"):
    """A class that checks its own rows, from one version on more strictly."""

    account: str
    events: int = 0

    def __post_init__(self) -> None:
        """Raise an error that is not a ValueError."""
        if STRICT and self.events:
            raise LookupError("too many")

    def evolve(self, event: Opened) -> None:
        """Count."""
        self.events += 1


STRICT: list[bool] = []


def test_a_row_that_its_own_class_refuses_later_is_parked_with_its_position(store: ef.Store) -> None:
    """Whatever the class raises when a row is read back, the event is parked and others are folded."""
    store.append(Opened("a"))
    store.project(Checked)
    store.append(Opened("a"))
    store.append(Opened("b"))
    STRICT.append(True)
    try:
        store.project(Checked)
        assert [entry.position for entry in store.projections.parked(Checked)] == [2]
        assert "LookupError: too many" in store.projections.status(Checked)[0].sentence
        with pytest.raises(InvalidProjection, match="refused by its own class Checked: LookupError"):
            store.rows(Checked)
    finally:
        STRICT.clear()
    assert {row.account for row in store.rows(Checked)} == {"a", "b"}


class Status(ef.Projection, name="changed_keys_wrong_type", attempts=1, on_error="park"):
    """Gives a field a value of another type than it declares."""

    account: str
    since: list[int] = []

    def evolve(self, event: Opened) -> None:
        """Assign what has no JSON form, for one account."""
        self.since = [object()] if event.account == "b" else [1]  # type: ignore[list-item]


def test_a_value_that_cannot_be_written_is_parked(store: ef.Store) -> None:
    """Any error raised while a row is prepared for writing concerns its event only."""
    store.append(Opened("a"), Opened("b"), Opened("c"))
    store.project(Status)
    assert [entry.position for entry in store.projections.parked(Status)] == [2]
    assert {row.account for row in store.rows(Status)} == {"a", "c"}
