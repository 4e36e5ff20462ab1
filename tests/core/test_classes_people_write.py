"""Classes and values as people write them: aliases, private names, own checks, derived built-ins, deep trees."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

import eventfold as ef
from eventfold.core.json_values import MOST_NESTED, is_nested_deeper
from eventfold.errors import InvalidEvent, InvalidProjection, InvalidState, UndecodableEvent


class OwnText(str):
    __slots__ = ()


class OwnNumber(int):
    pass


class OwnDecimal(Decimal):
    pass


class OwnDate(date):
    pass


class OwnMoment(datetime):
    """As clocks that are frozen in tests make them."""


class Logged(ef.Event, type="written.logged"):
    who: ef.Tag
    number: int = 0
    amount: Decimal = Decimal(0)
    day: date | None = None
    at: datetime | None = None
    names: dict[str, list[str]] = {}


class Anything(ef.Event, type="written.anything"):
    who: ef.Tag
    body: Any = None


class Derived(ef.Event, type="written.derived"):
    """Declares the derived classes themselves."""

    who: ef.Tag[OwnText]
    number: OwnNumber
    amount: OwnDecimal
    at: OwnMoment


@ef.event("written.aliased")
class Aliased(BaseModel):
    order: ef.Tag
    user: int = Field(alias="userId")
    note: str = Field(default="none", alias="theNote")
    size: int = Field(default=0, serialization_alias="theSize")


@ef.event("written.computed")
class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    order: ef.Tag
    cents: int

    @computed_field
    @property
    def euros(self) -> float:
        return self.cents / 100


@ef.event("written.private")
@attrs.frozen
class Private:
    order: ef.Tag
    _secret: int = 0
    tags: frozenset[str] = frozenset()


class OwnError(Exception):
    """A shop's own, as domain errors are: no ValueError."""


@ef.event("written.looked-up")
class LookedUp(BaseModel):
    order: ef.Tag
    quantity: int

    @field_validator("quantity")
    @classmethod
    def look_up(cls, value: int) -> int:
        if value > 10:
            raise KeyError(value)
        return value


strict: type[Exception] | None = None


@ef.event("written.checked")
@dataclass
class Checked:
    order: ef.Tag
    quantity: int

    def __post_init__(self) -> None:
        if strict is not None and self.quantity > 10:
            raise strict(f"{self.quantity} are too many")


class Order(ef.State):
    order: ef.Tag
    quantity: int = 0

    def evolve(self, event: Checked) -> None:
        self.quantity += event.quantity


class Orders(ef.Projection, name="written_orders", on_error="park", without_key="park"):
    order: str
    quantity: int = 0

    def evolve(self, event: Checked) -> None:
        self.quantity += event.quantity


@pytest.fixture(params=["memory:", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    """A store in memory, and one in a file."""
    with ef.Store("memory:" if request.param == "memory:" else tmp_path / "s.db") as opened:
        yield opened


@pytest.mark.parametrize(
    "event",
    [
        Logged(OwnText("a")),
        Logged("a", OwnNumber(4)),
        Logged("a", amount=OwnDecimal("1.50")),
        Logged("a", day=OwnDate(2026, 1, 2)),
        Logged("a", at=OwnMoment(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
        Logged("a", names={OwnText("k"): [OwnText("v")]}),
        Derived(OwnText("a"), OwnNumber(4), OwnDecimal("1.50"), OwnMoment(2026, 1, 2, tzinfo=UTC)),
        Aliased(order="1", userId=7, theNote="x", size=3),
        Computed(order="1", cents=5),
        Private("1", 5, frozenset({"b", "a"})),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_has_a_built_in_value_is_stored_and_comes_back(store: ef.Store, event: Any) -> None:
    """Values of derived classes, fields with aliases, computed fields, private names: equal when read."""
    store.append(event)
    (recorded,) = store.read()
    assert recorded.event == event
    assert type(recorded.event) is type(event)


def test_a_derived_value_is_stored_as_the_built_in_one() -> None:
    """The bytes are those of the built-in value, so that equal events are equal bytes."""
    with ef.Store("memory:") as store:
        store.append(Logged("a", 4, at=datetime(2026, 1, 2, tzinfo=UTC)))
        store.append(Logged(OwnText("a"), OwnNumber(4), at=OwnMoment(2026, 1, 2, tzinfo=UTC)))
        plain, own = store.read()
    assert plain.stored.data == own.stored.data
    assert plain.tags == own.tags == ("who:a",)


def test_a_value_without_json_form_is_refused_by_its_field() -> None:
    """The message names the field."""
    with (
        ef.Store("memory:") as store,
        pytest.raises(InvalidEvent, match=r"field body: objects of type builtins.object"),
    ):
        store.append(Anything("a", object()))


def _nested(depth: int) -> Any:
    body: Any = 1
    for _ in range(depth):
        body = [body]
    return body


def test_nesting_is_kept_up_to_a_limit_and_refused_beyond(store: ef.Store) -> None:
    """The deepest value is kept and folded; one level more, and one that holds itself, are refused by their field."""

    class Last(ef.State):
        who: ef.Tag
        body: Any = None

        def evolve(self, event: Anything) -> None:
            self.body = event.body

    deepest = _nested(MOST_NESTED - 1)  # the event itself is a level
    store.append(Anything("a", deepest))
    for _ in range(2):
        assert store.state(Last("a")).body == deepest
    endless: list[Any] = []
    endless.append(endless)
    for body in (_nested(MOST_NESTED), _nested(5_000), endless):
        with pytest.raises(InvalidEvent, match="field body is nested deeper than 200 levels"):
            store.append(Anything("a", body))
        with pytest.raises(InvalidEvent, match="nested deeper"), store.context(facts=body):
            store.append(Anything("a"))


@pytest.mark.parametrize("text", ["[" * 600, '"' + "[" * 600, "\\" * 601 + '"[' * 300])
def test_brackets_within_texts_are_no_levels(text: str) -> None:
    """Only what is outside of texts counts, whatever the texts hold."""
    assert not is_nested_deeper(msgspec.json.encode({"a": [text, text]}))
    assert is_nested_deeper(msgspec.json.encode([text, _nested(MOST_NESTED), text]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [1.0, float("-inf")]}])
def test_a_number_that_json_lacks_is_refused_in_metadata(value: Any) -> None:
    """It would be read as null: the context, a draft, and an encoded event refuse it, and name it."""
    calls: list[Callable[[ef.Store], object]] = [
        lambda store: store.append(ef.Draft(Logged("a"), metadata={"rate": value})),
        lambda store: store.append_encoded(ef.NewEvent.of("written.logged", b'{"who":"a"}', metadata={"rate": value})),
    ]
    with ef.Store("memory:") as store:
        for call in calls:
            with pytest.raises(InvalidEvent, match=r"rate.* is -?(nan|inf), which JSON does not have"):
                call(store)
        with pytest.raises(InvalidEvent, match="rate"), store.context(rate=value):
            store.append(Logged("a"))
        store.append(ef.Draft(Logged("a"), metadata={"rate": {"a": [None, 1.5]}}))
        assert [each.metadata for each in store.read()] == [{"rate": {"a": [None, 1.5]}}]


def test_a_check_that_fails_before_anything_is_written_names_the_field() -> None:
    """A validator that raises what is no validation error refuses the append."""
    with ef.Store("memory:") as store:
        with pytest.raises(InvalidEvent, match=r"refused by its own class .* field quantity: KeyError"):
            store.append(LookedUp.model_construct(order="1", quantity=11))
        assert list(store.read()) == []


@pytest.mark.parametrize(
    "kind", [ValueError, TypeError, OwnError, KeyError, RuntimeError, AttributeError, AssertionError]
)
def test_a_check_that_fails_on_replay_names_the_position_and_is_parked(store: ef.Store, kind: type[Exception]) -> None:
    """Whatever its error's class: reading, folding and following say which event it is, and a read model goes on."""
    global strict
    try:
        store.append(Checked("a", 1), Checked("a", 2), Checked("a", 99), Checked("b", 3))
        strict = kind
        for call in (
            lambda: list(store.read()),
            lambda: store.state(Order("a")),
            lambda: list(zip(range(4), store.follow(), strict=False)),
        ):
            with pytest.raises(UndecodableEvent, match=r"Event 3 .*99 are too many") as caught:
                call()
            assert caught.value.fields["position"] == 3
        store.project(Orders)
        assert [parked.position for parked in store.projections.parked(Orders)] == [3]
        assert {row.order: row.quantity for row in store.rows(Orders)} == {"a": 3, "b": 3}
    finally:
        strict = None


def test_fields_of_events_have_any_name() -> None:
    """Names of a State's methods are names like others in events."""

    class Searched(ef.Event, type="written.searched"):
        query: ef.Tag
        evolve: int = 1
        record: str = ""
        type: str = "t"

    with ef.Store("memory:") as store:
        store.append(Searched("q"))
        assert [each.event for each in store.read()] == [Searched("q")]


class Derivable(ef.State):
    """One to derive from."""

    order: ef.Tag


HIDING: list[tuple[Any, str]] = [
    (ef.State, "query"),
    (ef.State, "evolve"),
    (Derivable, "evolve"),
    (ef.Aggregate, "record"),
    (ef.Aggregate, "recorded"),
    (ef.Process, "react"),
    (ef.Projection, "evolve"),
    (ef.Projection, "keep"),
]


@pytest.mark.parametrize(("base", "name"), HIDING)
def test_a_field_that_hides_a_method_is_refused_by_its_name(base: Any, name: str) -> None:
    """A class whose field has the name of a method that the library calls is refused where it is declared."""
    error = InvalidProjection if base is ef.Projection else InvalidState
    with pytest.raises(error, match=f"field {name}, which hides the method") as refused:
        type(base)("Hiding", (base,), {"__annotations__": {"order": ef.Tag, name: str}, "__module__": __name__})
    assert refused.value.fields["field"] == name


FREE = ["key", "tags", "rows", "version", "type", "position", "time", "metadata", "state", "start", "first", "tables"]


@pytest.mark.parametrize("name", FREE)
def test_fields_may_have_the_other_names_that_the_library_uses(name: str, tmp_path: Path) -> None:
    """In events, states and rows: stored, folded, tagged by and asked for."""
    space: dict[str, Any] = {"ef": ef, "__name__": __name__}
    source = """
class Free(ef.Event, type="written.free-{name}"):
    {name}: ef.Tag
class Asked(ef.State):
    {name}: ef.Tag
    n: int = 0
    def evolve(self, event: Free) -> None:
        self.n += 1
class Answered(ef.State):
    {name}: str = ""
    def query(self) -> ef.Query:
        return ef.Query.of(types=Free)
    def evolve(self, event: Free) -> None:
        self.{name} = event.{name}
class Keyed(ef.Projection, name="written_free_{name}"):
    {name}: str
    n: int = 0
    def evolve(self, event: Free) -> None:
        self.n += 1
"""
    exec(source.format(name=name), space)
    with ef.Store(str(tmp_path / "free.db")) as store:
        store.append(space["Free"]("a"), space["Free"]("b"))
        assert store.count(ef.Query.of(tags=f"{name}:a")) == 1
        assert store.state(space["Asked"]("a")).n == 1
        assert getattr(store.state(space["Answered"]()), name) == "b"
        store.project(space["Keyed"])
        assert store.rows(space["Keyed"], **{name: "b"}) == [space["Keyed"]("b", 1)]
        assert len(store.rows(space["Keyed"], order=f"-{name}", limit=1)) == 1
