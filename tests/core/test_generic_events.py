"""Generic event classes: one stored name per class; a type argument needs a derived class."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

import attrs
import pydantic
import pytest

import eventfold as ef
from eventfold.processes import effect
from eventfold.schema import build_lock, describe

T = TypeVar("T")


class Changed(ef.Event, Generic[T], type="generic.changed"):
    """Derived from ef.Event."""

    item: ef.Tag
    to: T


class PriceChanged(Changed[Decimal], type="generic.price-changed"):
    """Of one kind."""


@ef.event("generic.dataclass")
@dataclass(frozen=True)
class OfDataclass(Generic[T]):
    """A dataclass."""

    item: ef.Tag
    to: T


@ef.event("generic.dataclass-decimal")
@dataclass(frozen=True)
class DecimalOfDataclass(OfDataclass[Decimal]):
    """Of one kind."""


@ef.event("generic.attrs")
@attrs.frozen
class OfAttrs(Generic[T]):
    """With attrs."""

    item: ef.Tag
    to: T


@ef.event("generic.attrs-decimal")
@attrs.frozen
class DecimalOfAttrs(OfAttrs[Decimal]):
    """Of one kind."""


@ef.event("generic.pydantic")
class OfPydantic(pydantic.BaseModel, Generic[T]):
    """With pydantic, which makes a class for each kind."""

    item: ef.Tag
    to: T


@ef.event("generic.pydantic-decimal")
class DecimalOfPydantic(OfPydantic[Decimal]):
    """Of one kind."""


KINDS: list[tuple[Any, Any]] = [
    (Changed, PriceChanged),
    (OfDataclass, DecimalOfDataclass),
    (OfAttrs, DecimalOfAttrs),
    (OfPydantic, DecimalOfPydantic),
]


@pytest.mark.parametrize(("base", "derived"), KINDS)
def test_a_derived_class_is_stored_by_its_own_name_and_types(base: Any, derived: Any) -> None:
    """It is read as what it was, asked for and folded by itself and by the class that it is derived from."""

    class One(ef.State):
        item: ef.Tag
        to: Decimal = Decimal(0)

        def evolve(self, event: derived) -> None:
            self.to = event.to

    class All(ef.State):
        item: ef.Tag
        seen: list[Any] = []

        def evolve(self, event: base[Any]) -> None:
            self.seen.append(event.to)

    with ef.Store("memory:") as store:
        store.append(base(item="i-1", to="blue"), derived(item="i-1", to=Decimal("1.50")))
        assert [each.event for each in store.read()] == [
            base(item="i-1", to="blue"),
            derived(item="i-1", to=Decimal("1.50")),
        ]
        assert [found.type for found in store.types()] == sorted((describe(base).type, describe(derived).type))
        assert store.count(ef.Query.of(types=derived)) == 1
        assert store.count(ef.Query.of(types=base)) == store.count(ef.Query.of(types=base[Any])) == 2
        assert store.state(One("i-1")).to == Decimal("1.50")
        assert store.state(All("i-1")).seen == ["blue", Decimal("1.50")]
        with pytest.raises(ef.EventfoldError):  # text is all that JSON has for it, and the class does not say more
            store.append(base(item="i-1", to=Decimal("1.50")))


@pytest.mark.parametrize(("base", "derived"), KINDS)
def test_the_schema_of_a_derived_class_says_its_kind(base: Any, derived: Any) -> None:
    """The generic class takes any value; the lock file has both, under their names."""
    assert describe(base).schema["properties"]["to"] == {}
    assert describe(derived).schema["properties"]["to"] != {}
    assert set(build_lock([base, derived])["types"]) == {describe(base).type, describe(derived).type}


def state_of(hint: Any) -> Any:
    """Fold a state over it."""

    class Folded(ef.State):
        item: ef.Tag

        def evolve(self, event: hint) -> None: ...

    with ef.Store("memory:") as store:
        return store.state(Folded("i-1"))


def projected(hint: Any) -> Any:
    """Project a read model of it."""

    class Rows(ef.Projection):
        item: str
        n: int = 0

        def evolve(self, event: hint) -> None: ...

    with ef.Store("memory:") as store:
        store.project(Rows)


def reacted(hint: Any) -> Any:
    """Run a process that reacts to it."""

    class Reacting(ef.Process, start="beginning"):
        item: ef.Tag

        def evolve(self, event: PriceChanged) -> None: ...

        def react(self, event: hint) -> Any: ...

    with ef.Store("memory:") as store:
        store.run_until_idle(Reacting)


def done(hint: Any) -> Any:
    """Declare an effect of it."""

    @effect(start="now")
    def send(event: hint) -> None: ...


def upcast(hint: Any) -> Any:
    """Declare an upcaster from it."""

    @ef.upcast
    def step(old: hint) -> PriceChanged: ...  # type: ignore[empty-body]


USES: list[Callable[[Any], Any]] = [state_of, projected, reacted, done, upcast, lambda hint: ef.Query.of(types=hint)]


@pytest.mark.parametrize("base", [base for base, _ in KINDS])
def test_of_any_kind_is_the_generic_class_itself(base: Any) -> None:
    """As strict checkers want it written, in states, read models, processes and effects."""
    for use in (state_of, projected, reacted, done):
        use(base[Any])


@pytest.mark.parametrize("base", [base for base, _ in KINDS])
@pytest.mark.parametrize("use", USES, ids=["state", "projection", "process", "effect", "upcaster", "query"])
def test_what_stands_in_brackets_is_refused_and_says_what_to_write(base: Any, use: Callable[[Any], Any]) -> None:
    """A stored event does not have the type argument, so no fold could select by it."""
    with pytest.raises(
        ef.EventfoldError, match=rf"Derive a class of its own, class {base.__name__}\w+\({base.__name__}"
    ):
        use(base[int])


def test_a_generic_model_of_one_kind_is_refused_when_it_is_written() -> None:
    """pydantic creates a separate class, which is not declared."""
    with ef.Store("memory:") as store, pytest.raises(ef.EventfoldError, match="Derive a class of its own"):
        store.append(OfPydantic[int](item="i-1", to=1))
