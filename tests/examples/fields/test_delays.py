"""Predicted delays: no feature from after the cursor, a model's life under contention, the same features by SQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.core.query import Cursor
from eventfold.demo.fields import Comparison, change_byte, contend, damage_of, forge
from eventfold.demo.flights.events import FlightDeparted, FlightScheduled
from examples.fields.delays.app import (
    Calibration,
    DelayPredicted,
    Flight,
    Model,
    ModelPromoted,
    ModelRetired,
    ModelTrained,
    PredictionScored,
    Refused,
    predict,
    promote,
    retire,
    score,
)
from examples.fields.delays.check import check, find_breaches
from examples.fields.delays.features import KNOWN, Features, compute
from examples.fields.delays.lives import FIRST, run_model
from examples.fields.delays.load import load
from tests.support.servers.postgres import shared

FLIGHTS = 1_000  # of a slice
TRAINED = ModelTrained("m", "cursor", 10, "digest", ("hour",), 0.7)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store with a slice, which no test changes."""
    made = tmp_path_factory.mktemp("delays") / "delays.db"
    with ef.Store(str(made)) as store:
        assert load(store, FLIGHTS).is_complete
    return made


@pytest.fixture
def store(path: Path) -> Iterator[ef.Store]:
    """The store with the slice, for tests that only read it."""
    with ef.Store(str(path), create=False) as opened:
        yield opened


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    """A copy of the file, for tests that change it."""
    target = tmp_path / "copy.db"
    with ef.Store(str(path), create=False) as opened:
        opened.backup(str(target))
    return target


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new store."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return shared().url(schema=f"s{uuid4().hex[:12]}")


def test_a_second_load_writes_nothing(copy: Path) -> None:
    """Ids are made from the source, so that each row is recognised."""
    with ef.Store(str(copy)) as opened:
        head = opened.head()
        again = load(opened, FLIGHTS)
        assert again.is_complete
        assert (again.loaded, again.events, opened.head()) == (0, 0, head)
        assert again.repeated == head


def test_features_do_not_change_when_later_events_come(store: ef.Store) -> None:
    """The rows known at a position are the same, byte by byte, whether the log ended there or went on."""
    whole = compute(store)
    for part in (0.4, 0.7):
        position = int(store.head() * part)
        then = compute(store, until=position)
        rows, known = whole.known_at(position), then.known_at(position)
        assert rows
        assert whole.digest(rows) == then.digest(known)


def test_no_feature_is_from_after_its_cursor(store: ef.Store) -> None:
    """The cursor of each row lies before the departure, and two hours before the schedule."""
    features = compute(store)
    for row in range(len(features)):
        assert features.left[row] == 0 or features.positions[row] < features.left[row]
    for row in range(0, len(features), 97):
        at = next(iter(store.read(after=features.positions[row] - 1, limit=1))).occurred
        assert at is not None and (features.departs[row] - at).total_seconds() >= 2 * 3600


def test_the_check_agrees_with_the_source_and_a_second_run_writes_nothing(copy: Path) -> None:
    """Every feature is found again by SQL; predictions are scored; the report fits 80 columns."""
    with ef.Store(str(copy)) as opened:
        checked = check(opened, FLIGHTS)
        assert checked.comparison.mismatches == []
        assert checked.comparison.compared > FLIGHTS * len(KNOWN)
        assert max(len(line) for _, lines in checked.chapters for line in lines) <= 80
        assert checked.plot is not None and "with leaks" in checked.plot
        scored = opened.count(ef.Query.of(types=[PredictionScored]))
        assert 0 < scored <= opened.count(ef.Query.of(types=[DelayPredicted]))
        assert sum(each.flights for each in opened.rows(Calibration)) == scored
        head, features = opened.head(), compute(opened)
        run_model(opened, features, features.known_at(head), FIRST)
        assert opened.head() == head


def test_a_forged_prediction_is_found(copy: Path) -> None:
    """One that names a position after its flight's departure, and one by a retired model."""
    with ef.Store(str(copy)) as opened:
        features = compute(opened)
        row = features.known_at(opened.head())[10]
        name, left = features.flights[row], features.left[row]
        opened.append(TRAINED, ModelPromoted("m", "ann"))
        opened.decide(predict, Model("m"), Flight(name), opened.cursor(left - 1), 0.5)
        opened.decide(retire, Model("m"), "a test")
        assert breaches(opened, features) == []
        forge(opened, DelayPredicted("forged", name, str(opened.cursor(left)), left, 0.99))
        forge(opened, DelayPredicted("m", name, str(opened.cursor(left - 1)), left - 1, 0.99))
        assert breaches(opened, features) == [
            f"{name} had left when forged predicted",
            f"m was retired when it predicted {name}",
        ]


def breaches(store: ef.Store, features: Features) -> list[str]:
    """The breaches of the rule that the check finds in the log."""
    comparison = Comparison()
    find_breaches(store, features, comparison)
    return [each.figure for each in comparison.mismatches]


def test_a_changed_byte_is_found(copy: Path) -> None:
    """The engine's check of its log names the position."""
    assert damage_of(str(copy)).flaws == ()
    change_byte(copy, 5)
    assert 5 in [flaw.position for flaw in damage_of(str(copy)).flaws]


def test_the_training_set_is_a_parquet_file_that_names_its_cursor(store: ef.Store, tmp_path: Path) -> None:
    """Its metadata have the cursor, which the store verifies, and the digest of its rows."""
    import pyarrow.parquet

    from examples.fields.delays.export import export

    features, cursor = compute(store), store.cursor()
    rows = features.known_at(cursor.position)
    file = tmp_path / "training.parquet"
    export(features, rows, str(cursor), file)
    read = pyarrow.parquet.read_table(file)
    assert read.num_rows == len(rows)
    assert store.verify(Cursor.parse(read.schema.metadata[b"cursor"].decode())) == cursor.position
    assert read.schema.metadata[b"digest"].decode() == features.digest(rows)
    assert read.column("airport_delay").null_count < len(rows)


def announced(store: ef.Store, count: int) -> list[ef.Cursor]:
    """Announce flights `f-0`, `f-1`, … with a promoted model `m`; return a cursor for each."""
    at = datetime(2013, 1, 1, tzinfo=UTC)
    store.append(TRAINED, ModelPromoted("m", "ann"))
    for number in range(count):
        store.append(FlightScheduled(f"f-{number}", "UA", "EWR", "IAH", "2013-01-01", at, at, 1400))
    return [store.cursor() for _ in range(count)]


def test_a_prediction_after_the_departure_is_refused() -> None:
    """The cursor has to lie after the announcement and before the departure, whenever the prediction is made."""
    with ef.Store("memory:") as opened:
        (cursor,) = announced(opened, 1)
        at = next(iter(opened.read(limit=1))).time
        opened.append(FlightDeparted("f-0", "UA", "EWR", "IAH", "2013-01-01", "N1", at, 20))
        with pytest.raises(Refused, match="had left"):
            opened.decide(predict, Model("m"), Flight("f-0"), opened.cursor(), 0.5)
        with pytest.raises(Refused, match="not announced"):
            opened.decide(predict, Model("m"), Flight("f-0"), opened.cursor(1), 0.5)
        with pytest.raises(Refused, match="not promoted"):
            opened.decide(predict, Model("other"), Flight("f-0"), cursor, 0.5)
        assert len(opened.decide(predict, Model("m"), Flight("f-0"), cursor, 0.5).events) == 1
        (scored,) = opened.decide(score, [Flight("f-0")], "m").events
        assert scored.event == PredictionScored("m", "f-0", True, 0.5, 0.25)
        assert opened.decide(score, [Flight("f-0")], "m").events == ()


def predict_or_retire(model: Model, flight: Flight, cursor: ef.Cursor, ends: bool) -> list[ef.Event]:
    """One of 32 tasks retires the model, the others predict by it."""
    return [*retire(model, "a test")] if ends else [*predict(model, flight, cursor, 0.5)]


def test_a_retired_model_predicts_nothing_while_32_tasks_try(url: str) -> None:
    """After the retirement there is no prediction in the log. Without the condition there is."""
    late = {}
    for conditional in (True, False):
        with ef.Store(url) as opened:
            before = opened.head()
            cursors = announced(opened, 32) if conditional else [opened.cursor()] * 32
            if not conditional:
                opened.append(ModelTrained("n", "cursor", 1, "digest", (), 0.7), ModelPromoted("n", "ann"))
        name = "m" if conditional else "n"
        tasks = [(Model(name), Flight(f"f-{n}"), cursors[n], n == 0) for n in range(32)]
        contend(url, predict_or_retire, tasks, Refused, conditional=conditional)
        with ef.Store(url) as opened:
            query = ef.Query.of(types=[DelayPredicted, ModelRetired], tags=[f"model:{name}"])
            kinds = [recorded.type for recorded in opened.read(query, after=before)]
            late[conditional] = kinds[kinds.index("ModelRetired") + 1 :]
    assert late[True] == []
    assert late[False] != []


def test_a_flight_is_predicted_once_by_a_model(url: str) -> None:
    """Thirty-two tasks predict for one flight at once: there is one prediction, without the condition more."""
    with ef.Store(url) as opened:
        cursors = announced(opened, 2)
    for number, conditional in ((0, True), (1, False)):
        tasks = [(Model("m"), Flight(f"f-{number}"), cursors[number], 0.1 + n / 100) for n in range(32)]
        contend(url, predict, tasks, Refused, conditional=conditional)
        with ef.Store(url) as opened:
            made = opened.count(ef.Query.of(types=[DelayPredicted], tags=[f"flight:f-{number}"]))
        assert made == 1 if conditional else made > 1


def test_a_model_replaces_another_in_one_step() -> None:
    """The old one is retired in the append that promotes the new one; an untrained one is refused."""
    with ef.Store("memory:") as opened:
        opened.append(TRAINED, ModelTrained("n", "cursor", 10, "digest", ("hour",), 0.8))
        opened.decide(promote, Model("m"), None, by="ann")
        done = opened.decide(promote, Model("n"), Model("m"), by="ann")
        assert [each.type for each in done.events] == ["ModelRetired", "ModelPromoted"]
        assert done.receipt is not None and len(done.receipt.positions) == 2
        with pytest.raises(Refused, match="not trained"):
            opened.decide(promote, Model("x"), None, by="ann")
        with pytest.raises(Refused, match="retired"):
            opened.decide(promote, Model("m"), None, by="ann")
