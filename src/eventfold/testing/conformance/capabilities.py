"""An engine declares its capabilities; any other operation raises NotSupported and names an alternative."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.core.query import Query
from eventfold.errors import StoreClosed
from eventfold.ports.messages import Capabilities
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Account, Deposited, Noted, about, amounts, deposit, deposits
from eventfold.testing.conformance.fixtures import with_a_remedy
from eventfold.testing.faults import Faulty


class Balance(ef.Projection, name="conformance_balance"):
    """A read model: the number of deposits to an account."""

    account: str
    events: int = 0

    def evolve(self, event: Deposited) -> None:
        """Count one."""
        self.events += 1


def test_an_engine_has_a_name_and_capabilities(store: Store, capabilities: Capabilities) -> None:
    """An engine has a name of one word, and declares each capability as true or false."""
    assert store.engine.name.isidentifier()
    assert all(getattr(capabilities, field) in (True, False) for field in Capabilities.__struct_fields__)


def test_the_default_target_stores_read_models(
    store: Store, engine_under_test: EngineUnderTest, capabilities: Capabilities
) -> None:
    """An engine has a default target for read models and progress, also through a wrapper; without, both are refused.

    If stores can be shared, another handle finds them there.
    """
    where = store.engine.default_target
    assert Faulty(store.engine).default_target == where
    store.append(*deposits(3))
    if where is None:
        with_a_remedy(lambda: store.project(Balance))
        with_a_remedy(lambda: next(iter(store.follow(name="billing"))))
        return
    store.project(Balance)
    with store.follow(name="billing") as follower:
        next(iter(follower))
        follower.acknowledge()
    other = engine_under_test.open() if capabilities.shared else store
    assert [(row.account, row.events) for row in other.rows(Balance)] == [("a-1", 3)]
    with other.follow(name="billing") as follower:
        assert next(iter(follower)).position == 2


def test_conditions_over_any_query(store: Store, capabilities: Capabilities) -> None:
    """With `query_conditions` any query may be a condition; without, only one tag, and others are refused."""
    store.append(deposit("a-1"), unless=about("a-1"))
    conditions = [Query(), Query.of(types=Noted), about("a-1") | about("a-2"), Query.of(tags=["account:a-1", "x:1"])]
    for condition in conditions:
        if capabilities.query_conditions:
            store.append(deposit("a-1"), unless=condition, after=store.head())
        else:
            with_a_remedy(lambda: store.append(deposit("a-1"), unless=condition, after=store.head()))  # noqa: B023


def test_request_keys(store: Store, capabilities: Capabilities) -> None:
    """With `request_keys` keys are supported; without, a key is refused, never ignored."""
    if capabilities.request_keys:
        store.append(deposit(), key="k")
        assert store.append(deposit(), key="k").repeated
    else:
        with_a_remedy(lambda: store.append(deposit(), key="k"))
        with_a_remedy(lambda: store.using(command_id="c").decide(lambda: [Noted()]))
        assert store.head() == 0


def test_backups(store: Store, tmp_path: Path) -> None:
    """A backup is a store with the same events and identity and a later epoch; or it is refused with a remedy."""
    store.append(*deposits(3))
    copy = tmp_path / "backup"
    if store.engine.services.backup is None:
        with_a_remedy(lambda: store.backup(str(copy)))
        return
    store.backup(str(copy))
    store.append(deposit(amount=99))
    engine = store.stats().get("behind", store.engine.name)  # the copy of a server's store is one of its engine
    with ef.Store(f"{engine}:{copy}") as restored:
        assert amounts(restored.read()) == [1, 2, 3]
        assert restored.engine.store_id == store.engine.store_id
        assert restored.engine.epoch > store.engine.epoch
        assert restored.append(deposit(amount=100)).first == 4
        kept = store.cursor()
        with pytest.raises(ef.EventfoldError) as refused:
            next(iter(restored.follow(after=kept)))
        assert refused.value.code == "cursor-mismatch"
    assert amounts(store.read()) == [1, 2, 3, 99]


def test_closing_twice_is_harmless(store: Store) -> None:
    """A store may be closed more than once, explicitly and by its `with` block."""
    store.append(deposit())
    store.close()
    store.close()


CLOSED: dict[str, Callable[[Store], Any]] = {
    "append": lambda s: s.append(deposit()),
    "read": lambda s: list(s.read()),
    "state": lambda s: s.state(Account("a-1")),
    "history": lambda s: list(s.history(Account("a-1"))),
    "decide": lambda s: s.decide(lambda account: [Noted()], Account("a-1")),
    "head": lambda s: s.head(),
    "count": lambda s: s.count(),
    "event": lambda s: s.event(UUID(int=1)),
    "tag": lambda s: s.tag("x"),
    "cursor": lambda s: s.cursor(),
    "receipt": lambda s: s.receipt("k"),
    "types": lambda s: s.types(),
    "tags": lambda s: s.tags(),
    "stats": lambda s: s.stats(),
    "follow": lambda s: next(iter(s.follow())),
}


def has_resources(capabilities: Capabilities) -> bool:
    """Whether the engine has a file or a connection to close. A named log in memory stays open for other handles."""
    return capabilities.blocks or capabilities.suspends


def test_a_closed_store_raises_store_closed(
    store: Store, engine_under_test: EngineUnderTest, capabilities: Capabilities
) -> None:
    """Every use of a closed store that had a file or a connection is StoreClosed, and writes nothing."""
    store.append(deposit())
    store.close()
    if not has_resources(capabilities):
        assert store.head() == 1
        return
    for call in CLOSED.values():
        with pytest.raises(StoreClosed):
            call(store)
    assert engine_under_test.open().head() == 1


def test_closing_one_handle_leaves_the_others(store: Store, open_again: Callable[[], Store]) -> None:
    """Other handles of the same store keep reading and writing when one is closed."""
    other = open_again()
    store.append(deposit())
    store.close()
    assert other.append(deposit()).first == 2
    assert len(list(other.read())) == 2


def test_closing_a_store_ends_its_followers(store: Store, capabilities: Capabilities) -> None:
    """A follower that waits while its file or connection is closed gets an error, and does not wait forever."""
    import threading

    from eventfold.testing.conformance.follow import SOON, soon

    ended: list[BaseException | None] = []
    follower = store.follow()

    def follow() -> None:
        try:
            ended.extend(None for _ in follower)
        except StoreClosed as error:
            ended.append(error)

    store.append(deposit())
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert soon(lambda: len(ended) == 1)
    store.close()
    if not has_resources(capabilities):
        follower.close()
        ended.append(StoreClosed("", ""))
    thread.join(SOON)
    assert not thread.is_alive()
    assert isinstance(ended[-1], StoreClosed)
