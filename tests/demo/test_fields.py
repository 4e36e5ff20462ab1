"""What the examples share: loading once, contention with and without a condition, planted faults, comparisons."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import pytest

import eventfold as ef
from eventfold.demo import fields
from eventfold.demo.fields import plot, report
from eventfold.demo.fields.run import Checked
from eventfold.errors import CorruptEvent, EventIdReused
from tests.support.servers.postgres import shared

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


class SeatTaken(ef.Event, type="fields.SeatTaken"):
    """A seat of a show was taken."""

    show: ef.Tag
    seat: int


class Full(Exception):
    """No seat is left."""


class Show(ef.State):
    """How many seats of a show are taken."""

    show: ef.Tag
    taken: int = 0

    def evolve(self, event: SeatTaken) -> None:
        """Count a seat."""
        self.taken += 1


def take(show: Show, seats: int) -> SeatTaken:
    """Take a seat, if one is left."""
    if show.taken >= seats:
        raise Full(show.show)
    return SeatTaken(show.show, show.taken + 1)


def drafts(first: int, last: int) -> list[tuple[ef.Draft[SeatTaken], int]]:
    """Events with ids from their numbers, each of two rows."""
    return [
        (ef.Draft(SeatTaken("a", number), id=fields.id_from(NOON, "a", number), occurred=NOON), 2)
        for number in range(first, last)
    ]


def test_a_second_load_writes_nothing_whatever_its_batches() -> None:
    """Ids come from the source, so a repeated event is recognised in a batch of another size, too."""
    with ef.Store("memory:") as store:
        for batch, loaded, repeated in ((7, 50, 0), (7, 0, 50), (10, 0, 50)):
            count = fields.LoadCount()
            count.read = 50
            fields.write(store, drafts(0, 25), count, batch=batch)
            assert (count.loaded, count.repeated, count.events) == (loaded, repeated, loaded // 2)
            assert count.is_complete
        assert store.head() == 25


def test_a_load_that_was_interrupted_is_continued_and_repeats_in_a_source_are_counted() -> None:
    """Some events of a batch are in the log, one stands in the batch twice, the others are new."""
    with ef.Store("memory:") as store:
        fields.write(store, drafts(0, 5), fields.LoadCount(), batch=10)
        count = fields.LoadCount()
        count.read = 22
        fields.write(store, [*drafts(0, 10), *drafts(9, 10)], count, batch=20)
        assert (count.loaded, count.repeated, count.events) == (10, 12, 5)
        assert count.is_complete
        assert [each.event.seat for each in store.read()] == list(range(10))


def test_other_content_under_a_known_id_is_an_error() -> None:
    """A source that changed is not loaded in silence."""
    with ef.Store("memory:") as store:
        fields.write(store, drafts(0, 5), fields.LoadCount())
        changed = [(ef.Draft(SeatTaken("a", 99), id=draft.id, occurred=NOON), rows) for draft, rows in drafts(0, 5)]
        with pytest.raises(EventIdReused):
            fields.write(store, changed, fields.LoadCount(), batch=3)


def test_an_append_ends_where_the_loader_says_so() -> None:
    """A moment of the log is a whole append: what is asked as of it has none of the following events."""
    with ef.Store("memory:") as store:
        fields.write(store, [*drafts(0, 3), None, *drafts(3, 5), None], fields.LoadCount())
        assert store.state(Show("a"), at=2).taken == 3
        assert store.state(Show("a"), at=4).taken == 5


def test_rows_that_are_not_accounted_for_show_in_the_count() -> None:
    """The equation is printed as an inequality."""
    count = fields.LoadCount()
    count.read, count.loaded = 10, 7
    count.reject("without a date", 2)
    assert not count.is_complete
    assert "10 rows read ≠ 7 loaded + 0 repeated + 2 rejected" in str(count)
    count.loaded = 8
    assert "10 rows read = 8 loaded + 0 repeated + 2 rejected" in str(count)
    assert "rejected: 2 without a date" in str(count)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_thirty_two_tasks_keep_the_rule_and_break_it_without_the_condition(engine: str, tmp_path: Path) -> None:
    """Five seats are sold five times under a condition; without one, every task takes the first seat."""
    url = str(tmp_path / "s.db") if engine == "sqlite" else f"{shared().url()}?schema=t{uuid4().hex}"
    with ef.Store(url) as store:
        done = fields.contend(url, take, [(Show("a"), 5)] * 32, Full)
        assert (done.accepted, done.refused) == (5, 27)
        assert store.state(Show("a")).taken == 5
        done = fields.contend(url, take, [(Show("b"), 5)] * 32, Full, conditional=False)
        assert (done.accepted, done.refused) == (32, 0)
        assert store.state(Show("b")).taken == 32


def test_a_changed_byte_is_found_by_the_check_of_the_log(tmp_path: Path) -> None:
    """The engine names the event, and refuses to return it."""
    path = tmp_path / "s.db"
    with ef.Store(str(path)) as store:
        fields.write(store, drafts(0, 50), fields.LoadCount())
    assert fields.damage_of(str(path)).proved
    fields.change_byte(path, 17)
    found = fields.damage_of(str(path))
    assert 17 in [flaw.position for flaw in found.flaws]
    with ef.Store(str(path)) as store, pytest.raises(CorruptEvent):
        list(store.read())


def test_only_the_event_at_the_position_is_changed(tmp_path: Path) -> None:
    """Events with equal payloads, and a long one with an equal beginning, stay as they are; the change is one bit."""
    path = tmp_path / "s.db"

    class Noted(ef.Event, type="fields.Noted"):
        text: str

    with ef.Store(str(path)) as store:
        store.append(*[Noted("alike")] * 600, Noted("alike" * 2_000), Noted("alike" * 2_001))
    before = path.read_bytes()
    for position in (300, 601):
        fields.change_byte(path, position)
    assert {flaw.position for flaw in fields.damage_of(str(path)).flaws} - {None} == {300, 601}
    after = path.read_bytes()
    changed = [one ^ other for one, other in zip(before, after, strict=True) if one != other]
    assert set(changed) == {1}
    with pytest.raises(ValueError, match="no event at position 603"):
        fields.change_byte(path, 603)


def test_a_comparison_names_what_differs_and_what_is_missing_on_either_side() -> None:
    """Equal keys are compared, others are differences."""
    found = fields.Comparison()
    found.figures("total", {"a": 1, "b": 2, ("c", 1): 3}, {"a": 1, "b": 5, "d": 4})
    found.figure("sum", 6, 6)
    assert found.compared == 5
    assert {(each.figure, each.events, each.source) for each in found.mismatches} == {
        ("total, b", 2, 5),
        ("total, c 1", 3, None),
        ("total, d", None, 4),
    }
    assert "3 of 5" in found.lines()[0]


def test_reports_fit_eighty_columns() -> None:
    """Long texts are cut, numbers are not."""
    rows = [("x" * 90, 12_345, Decimal("1.5")), ("short", 7, None)]
    names = {f"name {number}": number * 1000 for number in range(12)}
    lines = [
        *report.heading("A title", "a note"),
        *report.table(("what", "how many", "mean"), rows),
        *report.bars(names, " £"),
        *report.columns(list(names.values())),
        *report.numbers(names),
    ]
    assert max(map(len, lines)) <= report.WIDTH
    assert any("12,345" in line and "…" in line for line in lines)


def test_plots_are_valid_and_are_described() -> None:
    """An image that cannot be seen is read."""
    made = [
        plot.bar_plot("Sales <a month>", "Sales grow & grow.", {"Jan": 3, "Feb": 4_500}, unit=" £"),
        plot.line_plot(
            "Two lines", "They cross.", {"one": [(0, 1), (1, 2)], "two": [(0, 2), (1, -1)]}, labels={0: "a"}
        ),
    ]
    for each in made:
        tree = ElementTree.fromstring(each)
        assert tree.find("{http://www.w3.org/2000/svg}desc") is not None
        assert tree.get("role") == "img"


def test_the_program_of_an_example_prints_and_ends_with_one_if_a_figure_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is that of the comparison and of the count of rows."""

    def load(store: ef.Store, limit: int | None) -> fields.LoadCount:
        count = fields.LoadCount()
        count.read = 2 * (limit or 0)
        fields.write(store, drafts(0, limit or 0), count)
        return count

    def check(wanted: int) -> fields.run.Check:
        def found(store: ef.Store, limit: int | None) -> Checked:
            checked = Checked(plot=plot.bar_plot("p", "p", {}))
            checked.comparison.figure("events", store.head(), wanted)
            checked.add("Chapter", ["a line"])
            return checked

        return found

    picture = tmp_path / "p.svg"
    assert fields.main("seats", load, check(4), ["--limit", "4", "--plot", str(picture)]) == 0
    assert "all of them agree" in capsys.readouterr().out
    assert picture.read_text().startswith("<svg")
    assert fields.main("seats", load, check(5), ["--limit", "4", "--json"]) == 1
    assert '"mismatches":[{' in capsys.readouterr().out
