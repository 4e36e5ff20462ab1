"""States: the question and the answer, the query, independent copies, evolve, diff."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NewType, Optional
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core.query import Item, Query
from eventfold.core.state import ABSENT, copier_for, copy_state, diff, evolve_all, state_definition_of
from eventfold.errors import InvalidState


class Kind(Enum):
    """Immutable."""

    A = "a"


class Opened(ef.Event, type="states.opened"):
    """Tagged twice."""

    account: ef.Tag
    branch: ef.Tag[int] = 0


class Closed(ef.Event, type="states.closed", aliases=("states.ended",)):
    """Has an older name."""

    account: ef.Tag
    branch: ef.Tag[int] = 0


class ClosedByBank(Closed, type="states.closed-by-bank"):
    """A kind of Closed."""


class Untagged(ef.Event, type="states.untagged"):
    """No tags."""

    text: str = ""


class Account(ef.State):
    """One tag asked."""

    account: ef.Tag
    open: bool = False

    def evolve(self, event: Opened | Closed) -> None:
        """Take one event in."""
        self.open = isinstance(event, Opened)


class Branch(ef.State):
    """Two tags asked: all of them."""

    account: ef.Tag
    number: Annotated[int, ef.tag("branch")]
    count: int = 0

    def evolve(self, event: Opened) -> None:
        """Take one event in."""
        self.count += 1


class Several(ef.State):
    """Any of several values."""

    account: ef.Tag[tuple[str, ...]]
    number: Annotated[int, ef.tag("branch")]
    count: int = 0

    def evolve(self, event: Opened) -> None:
        """Take one event in."""
        self.count += 1


class Whole(ef.State):
    """Every event there is."""

    count: int = 0

    def evolve(self, event: ef.Event) -> None:
        """Take one event in."""
        self.count += 1


# ------------------------------------------------------------------------------------------ question and query


def test_fields_without_default_are_the_question() -> None:
    """The question is given by position or name; the other fields are the answer, at their defaults at first."""
    plan = state_definition_of(Branch)
    assert plan.question == ("account", "number")
    assert plan.initial(Branch("a", 7, 99)) == Branch("a", 7)
    assert plan.key(Branch("a", 7, 99)) == (Branch, "a", 7)


def test_a_question_is_a_query() -> None:
    """The types evolve names, under all their names, and all of the question's tags."""
    names = ("states.opened", "states.closed", "states.ended", "states.closed-by-bank")
    assert Account("a-1").query() == Query((Item(names, ("account:a-1",)),))
    assert Branch("a-1", 7).query() == Query((Item(("states.opened",), ("account:a-1", "branch:7")),))
    assert Whole().query() == Query()


def test_a_tuple_in_the_question_means_any_of_it() -> None:
    """Each value is an alternative of its own, together with the other tags."""
    assert Several(("a", "b"), 7).query() == Query(
        (
            Item(("states.opened",), ("account:a", "branch:7")),
            Item(("states.opened",), ("account:b", "branch:7")),
        )
    )


@pytest.mark.parametrize("question", [Several((), 7), Branch(None, 7)])  # type: ignore[arg-type]
def test_an_empty_value_asks_for_nothing(question: ef.State) -> None:
    """A question without a value is InvalidState, rather than a question about everything."""
    with pytest.raises(InvalidState):
        question.query()


def test_a_keyword_question_is_a_question_too() -> None:
    """A State whose fields are given by name is asked and blanked in the same way."""

    class ByName(ef.State, kw_only=True):
        account: ef.Tag
        open: bool = False
        region: str

        def evolve(self, event: Opened) -> None:
            self.open = True

    asked = ByName(account="a", region="north", open=True)
    plan = state_definition_of(ByName)
    assert set(plan.question) == {"account", "region"}
    assert plan.initial(asked) == ByName(account="a", region="north")


# ------------------------------------------------------------------------------------------ classes that cannot fold


class NoEvolve(ef.State):
    """Nothing to fold."""

    account: ef.Tag


class Unannotated(ef.State):
    """Does not say what it takes."""

    account: ef.Tag

    def evolve(self, event) -> None:  # type: ignore[no-untyped-def]
        """Wrong on purpose."""


class NotEvents(ef.State):
    """Takes what is no event."""

    account: ef.Tag

    def evolve(self, event: int | str) -> None:
        """Wrong on purpose."""


class WrongTag(ef.State):
    """Asks by a tag that its event does not have."""

    account: ef.Tag

    def evolve(self, event: Untagged) -> None:
        """Wrong on purpose."""


class Unresolved(ef.State):
    """Names a class that is nowhere."""

    account: ef.Tag

    def evolve(self, event: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Wrong on purpose."""


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (NoEvolve("a"), "evolve"),
        (Unannotated("a"), "evolve"),
        (NotEvents("a"), "not an event class"),
        (WrongTag("a"), "no such tag"),
        (Unresolved("a"), "Nowhere"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ef.State) else "",
)
def test_a_class_that_cannot_be_folded_says_why(question: ef.State, says: str) -> None:
    """A State without a usable evolve is InvalidState at its first use, with the class and the way to correct it."""
    with pytest.raises(InvalidState) as refused:
        question.query()
    assert says in str(refused.value)
    assert type(question).__name__ in str(refused.value) or "evolve" in str(refused.value)


class OwnQuery(ef.State):
    """Asks otherwise than its fields say."""

    account: ef.Tag
    count: int = 0

    def query(self) -> Query:
        """By type alone."""
        return Query.of(types=Untagged)

    def evolve(self, event: Untagged) -> None:
        """Take one event in."""
        self.count += 1


def test_a_query_of_its_own_may_ask_otherwise() -> None:
    """A class that overrides `query()` may use tags that its events do not have."""
    assert OwnQuery("a").query() == Query.of(types=Untagged)


@pytest.mark.parametrize("value", [0, "", False, [], Decimal(5)])
def test_an_evolve_that_returns_is_refused(value: Any) -> None:
    """Any value that evolve returns would be lost, so it is refused, falsy values too."""

    class Returning(ef.State):
        account: ef.Tag

        def evolve(self, event: Opened) -> Any:
            return value

    with pytest.raises(InvalidState):
        evolve_all(Returning("a"), [Opened("a")])


def test_inherited_states_are_states() -> None:
    """A State derived from another keeps its evolve, its question and its answer."""

    class Special(Account):
        note: str = ""

    assert state_definition_of(Special).question == ("account",)
    state = Special("a")
    evolve_all(state, [Opened("a")])
    assert state.open


# ------------------------------------------------------------------------------------------ copies


@dataclass
class Mutable:
    """Something that can be spoilt."""

    items: list[int] = field(default_factory=list)


class Frozen(msgspec.Struct, frozen=True):
    """Cannot be spoilt."""

    x: int
    inner: tuple[str, ...] = ()


class FrozenOutside(msgspec.Struct, frozen=True):
    """Can be spoilt inside."""

    items: list[int]


Sku = NewType("Sku", str)


class Bag(ef.State):
    """An answer of every kind."""

    account: ef.Tag
    number: int = 0
    text: str = ""
    day: date | None = None
    kind: Kind = Kind.A
    word: Literal["a", "b"] = "a"
    sku: Sku = Sku("")
    frozen: Frozen = Frozen(1)
    pair: tuple[int, str] = (0, "")
    names: frozenset[str] = frozenset()
    numbers: list[int] = []
    members: set[str] = set()
    by_name: dict[str, int] = {}
    lists: dict[str, list[int]] = {}
    deep: dict[str, dict[str, set[int]]] = {}
    rows: list[list[int]] = []
    sets: list[set[int]] = []
    mixed: tuple[list[int], ...] = ()
    maybe: Optional[list[int]] = None  # noqa: UP045 (the older spelling is meant)
    either: list[int] | dict[str, int] | None = None
    mutable: Mutable | None = None
    outside: FrozenOutside | None = None
    bare: list = []  # type: ignore[type-arg]
    anything: Any = None
    sequence: Sequence[int] = []
    mapping: Mapping[str, list[int]] = {}
    queue: deque[int] = msgspec.field(default_factory=deque)
    default: defaultdict[str, list[int]] = msgspec.field(default_factory=lambda: defaultdict(list))
    counted: Counter[str] = msgspec.field(default_factory=Counter)
    ordered: OrderedDict[str, int] = msgspec.field(default_factory=OrderedDict)
    plain_default: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    nested_default: dict[str, dict[str, int]] = msgspec.field(default_factory=lambda: defaultdict(dict))

    def evolve(self, event: Opened) -> None:
        """Take one event in."""


def full() -> Bag:
    """A bag with something in everything."""
    bag = Bag("a", numbers=[1], members={"m"}, by_name={"a": 1}, lists={"a": [1]}, deep={"a": {"b": {1}}}, rows=[[1]])
    bag.sets, bag.mixed, bag.maybe, bag.either = [{1}], ([1], [2]), [1], {"a": 1}
    bag.mutable, bag.outside, bag.bare, bag.anything = Mutable([1]), FrozenOutside([1]), [[1]], {"a": [1]}
    bag.sequence, bag.mapping, bag.queue = [1], {"a": [1]}, deque([1])
    bag.default["a"].append(1)
    bag.counted["a"] += 1
    bag.ordered["a"] = 1
    bag.plain_default["a"] += 1
    bag.nested_default["a"]["b"] = 1
    return bag


def mutables(value: Any, path: str = "") -> dict[int, str]:
    """Every mutable thing within a value, by identity, with the way to it."""
    found: dict[int, str] = {}
    if isinstance(value, (list, set, dict, deque, Mutable)):
        found[id(value)] = path
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, (list, tuple, deque)):
        children = list(enumerate(value))
    elif isinstance(value, (msgspec.Struct, Mutable)):
        names = getattr(value, "__struct_fields__", ("items",))
        children = [(name, getattr(value, name)) for name in names]
    else:
        children = []
    for key, child in children:
        found |= mutables(child, f"{path}.{key}")
    return found


def test_a_copy_shares_nothing_that_can_be_changed() -> None:
    """Down to any depth, no list, set, dict or other mutable thing of a copy is the original's."""
    original = full()
    twin = copy_state(original)
    assert twin == original
    theirs = mutables(twin)
    assert not [path for identity, path in mutables(original).items() if identity in theirs]


def test_a_copy_is_of_the_same_kinds() -> None:
    """Every value of a copy has the original's class: a defaultdict stays one, though declared as a dict."""
    original, twin = full(), copy_state(full())
    for name in Bag.__struct_fields__:
        assert type(getattr(twin, name)) is type(getattr(original, name)), name
    twin.plain_default["new"] += 1
    twin.default["new"].append(1)
    twin.nested_default["new"]["x"] = 1
    assert "new" not in original.plain_default


def test_what_cannot_change_is_shared() -> None:
    """Immutable values are not copied, so a copy costs what can change."""
    for hint in (
        int,
        str | None,
        Decimal,
        UUID,
        datetime,
        Kind,
        Literal["a"],
        Frozen,
        tuple[str, ...],
        frozenset[int],
        Sku,
        ef.Tag[UUID],
    ):
        assert copier_for(hint) is None, hint
    assert [name for name, _ in state_definition_of(Account).copiers] == []


@given(st.dictionaries(st.text(max_size=3), st.lists(st.integers(), max_size=3), max_size=4))
def test_changing_a_copy_changes_nothing_else(lists: dict[str, list[int]]) -> None:
    """Changes of the nested collections of a copy do not change the original."""
    original = Bag("a", lists={key: list(value) for key, value in lists.items()})
    twin = copy_state(original)
    for value in twin.lists.values():
        value.append(0)
    twin.lists["new"] = [1]
    assert original.lists == lists


# ------------------------------------------------------------------------------------------ diff


def test_a_diff_names_what_differs() -> None:
    """Fields with their values before and after; of dicts, key by key, absent ones said so."""
    before = Bag("a", number=1, by_name={"a": 1, "b": 2}, numbers=[1])
    after = Bag("a", number=2, by_name={"b": 3, "c": 4}, numbers=[1])
    changes = diff(before, after)
    assert changes == {
        "number": (1, 2),
        "by_name[a]": (1, ABSENT),
        "by_name[b]": (2, 3),
        "by_name[c]": (ABSENT, 4),
    }
    assert (changes["number"].before, changes["number"].after) == (1, 2)
    assert repr(ABSENT) == "absent"
    assert diff(before, before) == {}


def test_only_moments_of_one_state_can_be_compared() -> None:
    """Two kinds of State have no diff: InvalidState."""
    with pytest.raises(InvalidState):
        diff(Account("a"), Whole())  # type: ignore[type-var]


def test_a_diff_of_two_questions_shows_the_question() -> None:
    """Two accounts differ in their account, too."""
    assert diff(Account("a"), Account("b", True)) == {"account": ("a", "b"), "open": (False, True)}
