"""Customers: a slice of CDNOW, features against a published table, predictions under contention, and leakage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import eventfold as ef
from eventfold.demo import fields
from examples.fields.customers.app import (
    Customer,
    Known,
    Model,
    ModelPromoted,
    ModelRetired,
    ModelTrained,
    ProfilingObjected,
    PurchaseMade,
    PurchasesPredicted,
    Refused,
    object_to_profiling,
    predict,
    retire,
)
from examples.fields.customers.check import breaches, check, export, known_customers
from examples.fields.customers.load import AHEAD_DAYS, MODEL, TRAINED, load
from tests.support.data import need

LIMIT = 2_500  # lines: some hundreds of customers


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with a slice of the source."""
    need("cdnow", "cdnow-sample", "cdnow-summary")
    path = tmp_path_factory.mktemp("customers") / "customers.db"
    with ef.Store(str(path)) as store:
        assert load(store, LIMIT).is_complete
    return path


@pytest.fixture
def copied(loaded: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be changed."""
    return Path(shutil.copy(loaded, tmp_path / "copy.db"))


def test_figures_features_and_scores_agree_and_a_second_load_writes_nothing(copied: Path) -> None:
    """With the file, by SQL, and with the table of features that others computed."""
    with ef.Store(str(copied)) as store:
        checked = check(store, LIMIT)
        assert checked.comparison.mismatches == []
        assert checked.figures["published_rows"] > 50
        head = store.head()
        again = load(store, LIMIT)
        assert (again.loaded, again.events, again.is_complete) == (0, 0, True)
        assert store.head() == head


def test_leakage_looks_better_than_an_honest_model(loaded: Path) -> None:
    """A model that was shown the future has half the error: its score is worth nothing."""
    with ef.Store(str(loaded)) as store:
        scores = check(store, LIMIT).figures["scores"]
    honest, leaky = scores["this model, as of its day"], scores["shown the future (leakage)"]
    assert leaky["mean_error"] < honest["mean_error"] / 1.5


def test_no_prediction_knows_what_came_after_its_cursor(loaded: Path) -> None:
    """The cursor is the last purchase of the model's day, and the state as of it gives the same features."""
    with ef.Store(str(loaded)) as store:
        (trained,) = store.read(ef.Query.of(types=[ModelTrained]))
        last = next(iter(store.read(after=trained.event.cursor - 1, limit=1)))
        following = next(iter(store.read(ef.Query.of(types=[PurchaseMade]), after=trained.position)))
        assert last.event.day <= TRAINED < following.event.day
        predicted = list(store.read(ef.Query.of(types=[PurchasesPredicted])))
        for each in predicted[::40]:
            then = store.state(Customer(each.event.customer), at=each.event.cursor)
            now = store.state(Customer(each.event.customer))
            assert then.known(TRAINED) == now.known(TRAINED)
            assert max(then.days) <= TRAINED


def test_forged_predictions_and_a_changed_byte_are_found(copied: Path) -> None:
    """One that says something else than its model, and one of a model that was never trained."""
    with ef.Store(str(copied)) as store:
        assert list(breaches(store)) == []
        known = next(iter(store.read(ef.Query.of(types=[PurchasesPredicted])))).event
        first = fields.forge(store, known)
        second = fields.forge(store, PurchasesPredicted("other", known.customer, 1, TRAINED, AHEAD_DAYS, 9.0))
        assert list(breaches(store)) == [
            f"event {first:,}: model {MODEL} has predicted customer {known.customer}",
            f"event {second:,}: model other is not in use",
        ]
    fields.change_byte(copied, 100)
    assert 100 in [flaw.position for flaw in fields.damage_of(str(copied)).flaws]


def test_what_was_known_is_exported_as_parquet(loaded: Path, tmp_path: Path) -> None:
    """A row for each customer, as of the day that is asked for."""
    path = tmp_path / "known.parquet"
    with ef.Store(str(loaded)) as store:
        count = export(known_customers(store).values(), date(1997, 1, 31), path)
    table = pyarrow.parquet.read_table(path)
    assert table.num_rows == count > 0
    assert max(table["last"].to_pylist()) <= date(1997, 1, 31)


KNOWN = Known(0, date(1997, 1, 2), date(1997, 1, 2), TRAINED)
TRAINED_MODEL = (ModelTrained("m", 1, TRAINED, 122, {KNOWN.cell: 0.5}), ModelPromoted("m"))


def begun(url: str) -> None:
    """A store with a customer and a model in use."""
    with ef.Store(url) as store:
        store.append(PurchaseMade("c-1", date(1997, 1, 2), 1, Decimal(9)), *TRAINED_MODEL)


@pytest.mark.parametrize("conditional", [True, False])
def test_thirty_two_evaluators_predict_a_customer_once(served: str, conditional: bool) -> None:
    """Without the condition each of them does, and the check finds it."""
    begun(served)
    done = fields.contend(
        served, predict, [(Model("m"), Customer("c-1"), KNOWN, 61)] * 32, Refused, conditional=conditional
    )
    assert (done.accepted == 1) == conditional
    with ef.Store(served) as store:
        assert (list(breaches(store)) == []) == conditional


def test_nothing_is_predicted_behind_a_retirement_or_an_objection(served: str) -> None:
    """Of 32 tasks one retires the model, one objects, the others predict: the order of the log is the rule."""
    begun(served)

    def act(number: int, model: Model, customer: Customer) -> Any:
        if number == 15:
            return retire(model, "drift")
        return object_to_profiling(customer) if number == 7 else predict(model, customer, KNOWN, 61)

    wanted = [(number, Model("m"), Customer("c-7" if number % 8 == 7 else f"c-{number}")) for number in range(32)]
    fields.contend(served, act, wanted, Refused)
    with ef.Store(served) as store:
        (retired,) = store.read(ef.Query.of(types=[ModelRetired]))
        assert store.count(ef.Query.of(types=[PurchasesPredicted]), after=retired.position) == 0
        (objected,) = store.read(ef.Query.of(types=[ProfilingObjected]))
        of_customer = ef.Query.of(types=[PurchasesPredicted], tags=["customer:c-7"])
        assert store.count(of_customer, after=objected.position) == 0


REFUSALS: list[tuple[str, Callable[[Model, Customer], Any]]] = [
    ("nothing behind", lambda model, customer: predict(model, customer, later(), 61)),
    ("not in use", lambda _model, customer: predict(Model("other"), customer, KNOWN, 61)),
    ("not in use", lambda _model, _customer: retire(Model("other"), "why")),
]


def later() -> Known:
    """What is known after the model's day."""
    return Known(1, date(1997, 1, 2), date(1997, 10, 1), date(1997, 10, 2))


@pytest.mark.parametrize(("why", "attempt"), REFUSALS)
def test_what_is_refused(why: str, attempt: Callable[[Model, Customer], Any]) -> None:
    """Each refusal says why."""
    model = Model("m")
    for event in TRAINED_MODEL:
        model.evolve(event)
    with pytest.raises(Refused, match=why):
        attempt(model, Customer("c-1"))
