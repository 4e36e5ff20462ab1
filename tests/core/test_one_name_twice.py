"""Two event classes of one name: of two modules, of two functions, of a module that is run and imported."""

import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidEvent, UnknownEventType

BILLING = """
import eventfold as ef
class Annulled(ef.Event{name}):
    order: ef.Tag
    cents: int = 0
class Invoice(ef.State):
    order: ef.Tag
    cancelled: bool = False
    def evolve(self, event: Annulled) -> None:
        self.cancelled = True
class Invoices(ef.Projection, name="one_name_invoices"):
    order: str
    cancelled: bool = False
    def evolve(self, event: Annulled) -> None:
        self.cancelled = True
"""
SHIPPING = """
import eventfold as ef
class Annulled(ef.Event{name}):
    order: ef.Tag
    parcel: str = ""
"""


def module(name: str, source: str, stored: str) -> Any:
    """A module made of a text, whose event has a stored name of its own where one is given."""
    made: Any = types.ModuleType(name)
    sys.modules[name] = made
    exec(source.format(name=f', type="{stored}"' if stored else ""), made.__dict__)
    return made


@pytest.fixture
def modules() -> Iterator[tuple[Any, Any]]:
    """Billing and shipping, each with a Annulled."""
    yield module("one_name_billing", BILLING, ""), module("one_name_shipping", SHIPPING, "")
    del sys.modules["one_name_billing"], sys.modules["one_name_shipping"]


@pytest.mark.parametrize("where", ["memory:", "file"])
def test_an_event_is_not_folded_as_that_of_another_module(modules: tuple[Any, Any], where: str, tmp_path: Path) -> None:
    """What shipping wrote is no fact of billing's: the state and the read model refuse it, and name both classes."""
    billing, shipping = modules
    both = r"'Annulled': one_name_shipping.Annulled and one_name_billing.Annulled"
    with ef.Store(where if where == "memory:" else str(tmp_path / "s.db")) as store:
        store.append(shipping.Annulled("o-1", "p-9"))
        with pytest.raises(UnknownEventType, match=both):
            store.state(billing.Invoice("o-1"))
        with pytest.raises(ef.EventfoldError, match=both):
            store.project(billing.Invoices)
        with pytest.raises(InvalidEvent, match=both):
            store.append(billing.Annulled("o-1"))
        assert [each.event for each in store.read()] == [shipping.Annulled("o-1", "p-9")]


def test_classes_that_say_their_common_name_share_it() -> None:
    """Who writes one stored name into two classes means the same events: each reads them as its own."""
    billing = module("one_name_billing_said", BILLING, "one-name.cancelled")
    shipping = module("one_name_shipping_said", SHIPPING, "one-name.cancelled")
    with ef.Store("memory:") as store:
        store.append(shipping.Annulled("o-1", "p-9"))
        assert store.state(billing.Invoice("o-1")).cancelled


def _first() -> type[ef.Event]:
    class OneNamePaid(ef.Event):
        order: ef.Tag
        cents: int

    return OneNamePaid


def _second() -> type[ef.Event]:
    class OneNamePaid(ef.Event):
        order: ef.Tag
        amount: str

    return OneNamePaid


def test_a_store_reads_what_it_wrote_as_the_class_that_wrote_it() -> None:
    """Two functions each declare a class of one name, and both classes live: reading and following are not confused."""
    for event in (_first()("o-1", 5), _second()("o-1", "5 EUR")):  # type: ignore[call-arg]
        other = (_first(), _second())
        with ef.Store("memory:") as store:
            store.append(event)
            assert [type(each.event).__qualname__ for each in store.read()] == [type(event).__qualname__]
            with store.follow() as follower:
                assert type(next(iter(follower)).event).__qualname__ == type(event).__qualname__
        del other


SHOP = """
import eventfold as ef
class Paid(ef.Event):
    order: ef.Tag
class Order(ef.State):
    order: ef.Tag
    n: int = 0
    def evolve(self, event: Paid) -> None:
        assert type(event) is Paid
        self.n += 1
class Orders(ef.Projection):
    order: str
    n: int = 0
    def evolve(self, event: Paid) -> None:
        assert type(event) is Paid
        self.n += 1
def pay(order: Order) -> Paid:
    return Paid(order.order)
if __name__ == "__main__":
    import sys, sold.rules
    with ef.Store(sys.argv[1]) as store:
        store.append(Paid("1"))
        sold.rules.append(store)
        store.decide(pay, Order("1"))
        sold.rules.decide(store)
        for order, orders in ((Order, Orders), (sold.rules.Order, sold.rules.Orders)):
            assert store.state(order("1")).n == 4
            store.project(orders)
            assert store.rows(orders) == [orders("1", 4)]
        assert all(proof.proved for proof in store.projections.verify())
"""
RULES = """
from sold.shop import Order, Orders, Paid, pay
def append(store):
    store.append(Paid("1"))
def decide(store):
    store.decide(pay, Order("1"))
"""


def test_a_module_that_is_run_by_its_name_and_imported_folds_both_its_classes(tmp_path: Path) -> None:
    """`python -m sold.shop`, whose other modules import sold.shop: each state and read model is given its own class."""
    (tmp_path / "sold").mkdir()
    (tmp_path / "sold" / "shop.py").write_text(SHOP)
    (tmp_path / "sold" / "rules.py").write_text(RULES)
    command = [sys.executable, "-m", "sold.shop", str(tmp_path / "s.db")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_run_and_imported_reads_its_own_classes(tmp_path: Path) -> None:
    """`python shop.py` that imports shop has each class twice: a store gives those that were used with it."""
    (tmp_path / "run_and_imported.py").write_text(
        "import sys\nimport eventfold as ef\n"
        "class Paid(ef.Event):\n    order: ef.Tag\n"
        "if __name__ == '__main__':\n"
        f"    sys.path.insert(0, {str(tmp_path)!r})\n"
        "    import run_and_imported as twin\n"
        "    for cls in (Paid, twin.Paid):\n"
        "        with ef.Store('memory:') as store:\n"
        "            store.append(cls('1'))\n"
        "            assert [type(each.event) for each in store.read()] == [cls]\n"
    )
    command = [sys.executable, str(tmp_path / "run_and_imported.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
