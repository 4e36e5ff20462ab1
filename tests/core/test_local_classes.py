"""Classes local to a function, annotations as they are: no future import, on purpose."""

from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID

import msgspec

import eventfold as ef
from tests.core.local_classes import use


def test_a_functions_classes_work() -> None:
    """Event and State classes of a function, naming each other, are folded."""

    class Opened(ef.Event, type="local.opened.plain"):
        account: ef.Tag
        amount: Decimal = Decimal(0)

    class Account(ef.State):
        account: ef.Tag
        total: Decimal = Decimal(0)

        def evolve(self, event: Opened) -> None:
            self.total += event.amount

    assert use(Account, Opened("a-1", Decimal(5))).total == 5


def test_a_functions_own_types_can_be_fields() -> None:
    """Enums, structs and aliases of the same function are types of an event's fields and a state's."""

    class Shade(Enum):
        RED = "red"

    class Point(msgspec.Struct, frozen=True):
        x: int

    AccountId = Annotated[str, ef.tag("account")]

    class Painted(ef.Event, type="local.painted.plain"):
        source: AccountId
        shade: Shade
        at: Point | None = None
        owner: ef.Tag[UUID] = UUID(int=1)

    class Account(ef.State):
        account: ef.Tag
        shades: list[Shade] = []
        points: dict[str, list[Point]] = {}

        def evolve(self, event: Painted) -> None:
            self.shades.append(event.shade)
            if event.at is not None:
                self.points.setdefault("all", []).append(event.at)

    state = use(Account, Painted("a-1", Shade.RED, Point(3)))
    assert (state.shades, state.points) == ([Shade.RED], {"all": [Point(3)]})


def test_a_class_made_in_a_loop_is_its_own() -> None:
    """Classes made by a function that runs twice are the ones of that run."""

    def make(number: int) -> tuple[type[ef.Event], type[ef.State]]:
        class Counted(ef.Event, type=f"local.counted-{number}.plain"):
            account: ef.Tag

        class Counting(ef.State):
            account: ef.Tag
            count: int = 0

            def evolve(self, event: Counted) -> None:
                self.count += number

        return Counted, Counting

    for number in (1, 2):
        event, state = make(number)
        assert use(state, event("a-1")).count == number
