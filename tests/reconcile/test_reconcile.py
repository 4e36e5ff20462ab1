"""Totals of events by key and period, compared with every kind of source: what differs is named, exactly."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import sqlalchemy as sa

import eventfold as ef
from eventfold.errors import EventfoldError, MissingExtra, SourceUnavailable
from eventfold.reconcile import Difference, NotReconciled, Ours, Reconciled, Theirs, reconcile, recorded
from eventfold.reconcile.result import Total

DAY = datetime(2026, 11, 20, 12, tzinfo=UTC)
Rows = list[dict[str, Any]]
ROWS: Rows = [
    {"account": "a-1", "amount": "0.10", "paid": "2026-11-20T12:00:00Z"},
    {"account": "a-1", "amount": "0.20", "paid": "2026-11-21T12:00:00Z"},
    {"account": "a-2", "amount": "5", "paid": "2026-11-20T12:00:00Z"},
]


class Charged(ef.Event, type="ReconciledCharge"):
    """An account was charged."""

    account: ef.Tag
    amount: Decimal


class Noted(ef.Event, type="ReconciledNote"):
    """Something else happened."""

    account: ef.Tag


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """Return a store with the events of ROWS, and two of another type."""
    with ef.Store(str(tmp_path / "shop.db")) as found:
        for row in ROWS:
            event = Charged(account=row["account"], amount=Decimal(row["amount"]))
            found.append(ef.Draft(event, occurred=datetime.fromisoformat(row["paid"])))
            found.append(Noted(account=row["account"]))
        yield found


OURS = Ours(filter="type:ReconciledCharge", key="account", sum="data.amount")
OURS_COUNTED = Ours(filter="type:ReconciledCharge", key="account")


def as_csv(folder: Path, rows: Rows) -> Theirs:
    """Return rows as a CSV file."""
    path = folder / "rows.csv"
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines), "utf-8-sig")
    return Theirs(address=str(path), key="account", sum="amount", time="paid")


def as_parquet(folder: Path, rows: Rows) -> Theirs:
    """Return rows as a Parquet file, with decimals and times of its own types."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    path = folder / "rows.parquet"
    typed = [row | {"amount": Decimal(row["amount"]), "paid": datetime.fromisoformat(row["paid"])} for row in rows]
    modules: Any = pa, parquet
    modules[1].write_table(modules[0].Table.from_pylist(typed), path)
    return Theirs(address=str(path), key="account", sum="amount", time="paid")


def as_table(folder: Path, rows: Rows) -> Theirs:
    """Return rows as a table of a database."""
    url = f"sqlite:///{folder / 'outside.sqlite'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE payment (account TEXT, amount TEXT, paid TEXT)"))
        connection.execute(sa.text("INSERT INTO payment VALUES (:account, :amount, :paid)"), rows)
    engine.dispose()
    return Theirs(address=url, key="account", sum="amount", time="paid", table="payment")


@pytest.mark.parametrize("source", [as_csv, as_parquet, as_table])
def test_both_sides_agree(source: Callable[[Path, Rows], Theirs], store: ef.Store, tmp_path: Path) -> None:
    """Sums are exact: 0.10 and 0.20 are 0.30, however a source writes them."""
    result = reconcile(store, OURS, source(tmp_path, ROWS))
    assert (result.equal, result.differing, result.differences) == (True, 0, ())
    assert (result.events, result.rows, result.keys, result.head) == (3, 3, 2, 6)
    assert result.verdict == "Both sides agree: 3 events by key, 2 values."


@pytest.mark.parametrize("source", [as_csv, as_parquet, as_table])
def test_keys_that_differ_are_named_with_both_values_and_positions(
    source: Callable[[Path, Rows], Theirs], store: ef.Store, tmp_path: Path
) -> None:
    """The largest difference first: also keys that one side does not have."""
    rows = [ROWS[0], ROWS[1] | {"amount": "0.21"}, {"account": "a-3", "amount": "7", "paid": ROWS[0]["paid"]}]
    result = reconcile(store, OURS, source(tmp_path, rows))
    assert not result.equal
    assert list(result.differences) == [
        Difference("a-3", "", 0, 1, Decimal(0), Decimal(7)),
        Difference("a-2", "", 1, 0, Decimal(5), Decimal(0), (5,)),
        Difference("a-1", "", 2, 2, Decimal("0.30"), Decimal("0.31"), (1, 3)),
    ]
    assert result.verdict == "3 of 3 values by key differ, first a-3, a-2, a-1: 3 events here, 3 outside."


def test_periods_are_compared_in_a_time_zone(store: ef.Store, tmp_path: Path) -> None:
    """The same totals in other periods differ; a period is that of the zone."""
    ours = Ours(filter=OURS.filter, key="account", by="day")
    same = as_csv(tmp_path, ROWS)
    theirs = Theirs(address=same.address, key="account", time="paid")
    assert reconcile(store, ours, theirs).keys == 3
    assert reconcile(store, ours, theirs).equal
    moved = [*ROWS[:1], ROWS[1] | {"paid": "2026-11-21T23:30:00Z"}, ROWS[2]]
    as_csv(tmp_path, moved)
    assert reconcile(store, ours, theirs).equal
    kolkata = Ours(filter=OURS.filter, key="account", by="day", zone=ZoneInfo("Asia/Kolkata"))
    found = reconcile(store, kolkata, theirs).differences
    assert [(each.key, each.period, each.events, each.rows) for each in found] == [
        ("a-1", "2026-11-21", 1, 0),
        ("a-1", "2026-11-22", 0, 1),
    ]
    assert found[0].positions == (3,)
    month = Ours(filter=OURS.filter, key="account", by="month")
    assert reconcile(store, month, theirs).keys == 2


def test_bounds_leave_out_what_is_not_outside_yet(store: ef.Store, tmp_path: Path) -> None:
    """`since` is inclusive and `until` exclusive, on both sides."""
    theirs = as_csv(tmp_path, ROWS[:1] + ROWS[2:])
    assert not reconcile(store, OURS, theirs).equal
    until = Ours(filter=OURS.filter, key="account", sum="data.amount", until=DAY + timedelta(days=1))
    assert reconcile(store, until, theirs).equal
    since = Ours(filter=OURS.filter, key="account", sum="data.amount", since=DAY + timedelta(days=1))
    assert [each.key for each in reconcile(store, since, theirs).differences] == ["a-1"]


def test_rows_may_be_totals_already(store: ef.Store, tmp_path: Path) -> None:
    """A database groups by itself; a column says how many each row stands for."""
    query = "SELECT account AS who, count(*) AS many, sum(amount) AS total FROM payment GROUP BY account"
    table = as_table(tmp_path, [each | {"amount": "2"} for each in ROWS])
    theirs = Theirs(address=table.address, key="who", count="many", query=query)
    assert reconcile(store, Ours(filter=OURS.filter, key="data.account"), theirs).equal
    found = reconcile(
        store,
        Ours(filter=OURS.filter, key="data.account", sum="data.amount"),
        Theirs(address=table.address, key="who", count="many", sum="total", query=query),
    )
    assert [(each.key, each.sum_outside) for each in found.differences] == [("a-1", Decimal(4)), ("a-2", Decimal(2))]


def test_listed_differences_are_bounded(tmp_path: Path) -> None:
    """All are counted, and of each at most 10 positions are named: the newest."""
    with ef.Store(str(tmp_path / "many.db")) as store:
        store.extend(Noted(account=f"a-{each % 100}") for each in range(3_000))
        (tmp_path / "none.csv").write_text("account\n", "utf-8")
        result = reconcile(store, Ours(key="account"), Theirs(address=str(tmp_path / "none.csv"), key="account"))
    assert (result.differing, len(result.differences)) == (100, 20)
    assert result.differences[0].positions == tuple(range(2_001, 3_000, 100))
    assert "and others" in result.verdict


def test_events_without_the_key_are_counted_too(store: ef.Store, tmp_path: Path) -> None:
    """They have the empty key, as rows without one have."""
    (tmp_path / "rows.csv").write_text("customer\n\n\n", "utf-8")
    (tmp_path / "rows.csv").write_text('customer\n""\n', "utf-8")
    theirs = Theirs(address=str(tmp_path / "rows.csv"), key="customer")
    (found,) = reconcile(store, Ours(filter=OURS.filter, key="customer"), theirs).differences
    assert (found.key, found.events, found.rows) == ("", 3, 1)


# An endpoint


@pytest.fixture
def endpoint() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the address of an endpoint, and what it answers: status, body, media type, location."""
    answer: dict[str, Any] = {"status": 200, "body": b"[]", "type": "application/json", "seen": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer["seen"].append(dict(self.headers))
            self.send_response(answer["status"])
            if "location" in answer:
                self.send_header("Location", answer["location"])
            self.send_header("Content-Type", answer["type"])
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/payments", answer
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_answers_with_json(store: ef.Store, endpoint: tuple[str, dict[str, Any]]) -> None:
    """A list, a list within an object, or lines; numbers are exact; headers are sent."""
    url, answer = endpoint
    raw = b'[{"account":"a-1","amount":0.10},{"account":"a-1","amount":0.20},{"account":"a-2","amount":5}]'
    for body, items, kind in (
        (raw, "", "application/json"),
        (b'{"data":{"items":' + raw + b"}}", "data.items", "application/json"),
        (b"\n".join(json.dumps(each).encode() for each in json.loads(raw)), "", "application/x-ndjson"),
    ):
        answer.update(body=body, type=kind)
        theirs = Theirs(address=url, key="account", sum="amount", items=items, headers={"Authorization": "Bearer x"})
        assert reconcile(store, OURS, theirs).equal
    assert {each["Authorization"] for each in answer["seen"]} == {"Bearer x"}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"status": 500}, "source-unavailable", "500"),
        ({"status": 302, "location": "http://127.0.0.1:1/"}, "source-unavailable", "302"),
        ({"body": b"<html>"}, "source-unavailable", "not JSON"),
        ({"body": b'{"data":[]}'}, "invalid-input", "The names are: data."),
        ({"body": b"[1]"}, "invalid-input", "objects"),
        ({"body": b'[{"other":1}]'}, "invalid-input", "They have: other."),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_named(
    store: ef.Store, endpoint: tuple[str, dict[str, Any]], change: dict[str, Any], code: str, says: str
) -> None:
    """Without a credential, and without following it elsewhere."""
    url, answer = endpoint
    answer.update(change)
    with pytest.raises(EventfoldError) as refused:
        reconcile(store, Ours(key="account"), Theirs(address=url, key="account"))
    assert refused.value.code == code
    assert says in str(refused.value)
    assert len(answer["seen"]) == 1


# What cannot be compared


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ({"sum": "data.amount"}, {}, "on one side only"),
        ({"by": "day"}, {}, "without a time"),
        ({"until": DAY}, {}, "no column of the time"),
        ({"sum": "amount"}, {"sum": "amount"}, "data.amount"),
        ({}, {"address": "rows.xls"}, "is no source"),
        ({}, {"address": "sqlite://"}, "needs a table or a query"),
        ({}, {"address": "nosuch://x/y", "table": "t"}, "does not know"),
        ({}, {"key": "customer"}, "They have: account, amount, paid."),
        ({"sum": "data.amount"}, {"sum": "account"}, "account of row 1 outside is 'a-1', which is no number"),
        ({"sum": "data.account"}, {"sum": "amount"}, "data.account of event 1 (ReconciledCharge) is 'a-1'"),
        ({"by": "day"}, {"time": "account"}, "account of row 1 outside is no time"),
        ({"filter": "type:"}, {}, "type"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    store: ef.Store, tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], says: str
) -> None:
    """Each error says what to write instead."""
    source = as_csv(tmp_path, ROWS)
    here: dict[str, Any] = {"filter": OURS.filter, "key": "account", **ours}
    outside: dict[str, Any] = {"address": source.address, "key": "account", **theirs}
    with pytest.raises(EventfoldError) as refused:
        reconcile(
            store,
            Ours(**here),
            Theirs(**outside),
        )
    assert refused.value.code in ("invalid-input", "invalid-filter")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "address", ["/nowhere/rows.csv", "/nowhere/rows.parquet", "http://127.0.0.1:1/x", "sqlite:////nowhere/x.db"]
)
def test_a_source_that_cannot_be_read_is_unavailable(store: ef.Store, address: str) -> None:
    """The message names it without secrets."""
    theirs = Theirs(address=address, key="account", table="t" if address.startswith("sqlite") else None)
    with pytest.raises(SourceUnavailable) as refused:
        reconcile(store, Ours(key="account"), theirs)
    assert address in str(refused.value)


def test_a_password_of_a_database_is_not_shown(store: ef.Store) -> None:
    """Also not where the driver is missing, or the database."""
    address = "postgresql+psycopg://ann:hunter2@127.0.0.1:1/shop?connect_timeout=1"
    with pytest.raises(SourceUnavailable) as refused:
        reconcile(store, Ours(key="account"), Theirs(address=address, key="account", table="t"))
    assert "hunter2" not in str(refused.value) + repr(refused.value.fields)
    with pytest.raises(MissingExtra) as missing:
        reconcile(store, Ours(key="account"), Theirs(address="oracle+oracledb://a:hunter2@h/x", key="a", table="t"))
    assert "hunter2" not in str(missing.value)


def test_a_line_of_another_length_is_refused(store: ef.Store, tmp_path: Path) -> None:
    """A comma within a value would be counted as something else."""
    (tmp_path / "rows.csv").write_text("account,amount\na-1,1,000\n", "utf-8")
    with pytest.raises(ef.InvalidInput, match="Line 2"):
        reconcile(store, Ours(key="account"), Theirs(address=str(tmp_path / "rows.csv"), key="account"))


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("", {}, "is empty: it has no line with names"),
        ("acct,amount\n", {}, "They have: acct, amount."),
        ("account,account\na-1,a-2\n", {}, "two columns account"),
        ("account,n\na-1,1.5\n", {"count": "n"}, "n of row 1 outside is 1.5, which is no whole number"),
        ("account,n\na-1,1e999999\n", {"count": "n"}, "which is no number"),
    ],
)
def test_a_file_that_would_be_counted_as_something_else_is_refused(
    store: ef.Store, tmp_path: Path, text: str, options: dict[str, Any], says: str
) -> None:
    """An export that failed is not a source in which all is missing."""
    (tmp_path / "rows.csv").write_text(text, "utf-8")
    with pytest.raises(ef.InvalidInput) as refused:
        reconcile(store, OURS_COUNTED, Theirs(address=str(tmp_path / "rows.csv"), key="account", **options))
    assert says in str(refused.value)


def test_a_file_of_another_encoding_is_named(store: ef.Store, tmp_path: Path) -> None:
    """With what to do about it."""
    (tmp_path / "rows.csv").write_text("account\nmüller\n", "latin-1")
    with pytest.raises(SourceUnavailable, match=r"is not UTF-8(?s:.*)Save it as UTF-8"):
        reconcile(store, OURS_COUNTED, Theirs(address=str(tmp_path / "rows.csv"), key="account"))


def test_a_time_that_is_outside_the_calendar_of_a_zone_has_a_period(store: ef.Store, tmp_path: Path) -> None:
    """9999-12-31 says "never" in many databases."""
    theirs = as_csv(tmp_path, [{"account": "a-1", "amount": "1", "paid": "9999-12-31T23:59:59Z"}])
    ours = msgspec.structs.replace(OURS_COUNTED, by="day", zone=ZoneInfo("Asia/Tokyo"))
    found = reconcile(store, ours, msgspec.structs.replace(theirs, time="paid", sum=None))
    assert ("a-1", "9999-12-31") in [(each.key, each.period) for each in found.differences]


def test_sums_of_many_digits_are_exact() -> None:
    """Also beyond the 28 digits that Python's decimals have by default."""
    total = Total()
    for amount in ("1e30", "0.1", "-1e30"):
        total.add(1, Decimal(amount))
    assert total.sum == Decimal("0.1")


def test_no_credential_of_an_address_or_a_header_is_shown_or_recorded(store: ef.Store) -> None:
    """Also not where a library quotes what it could not send."""
    sources = [
        Theirs(address="http://127.0.0.1:1/x?key=T0kenTok", key="account"),
        Theirs(address="http://127.0.0.1:1/x y?key=T0kenTok", key="account"),
        Theirs(address="http://me:T0kenTok@127.0.0.1:1/x", key="account"),
        Theirs(address="http://127.0.0.1:1/x", key="account", headers={"authorization": "Bearer T0kenTok\nx"}),
        Theirs(address="postgresql+psycopg://127.0.0.1:1/x?password=T0kenTok&connect_timeout=1", key="a", table="t"),
        Theirs(address="postgresql+psycopg://me:T0kenTok@127.0.0.1:abc/x", key="a", table="t"),
        Theirs(address="postgresql+psycopg://me:a@T0kenTok:b@127.0.0.1:abc/x", key="a", table="t"),
    ]
    for source in sources:
        with pytest.raises(EventfoldError) as refused:
            recorded(store, "payments", lambda each=source: reconcile(store, OURS_COUNTED, each))
        assert "T0kenTok" not in str(refused.value) + repr(refused.value.fields)
    facts = [each.event.verdict for each in store.read(ef.Query.of(types=Reconciled))]
    assert len(facts) == len(sources)
    assert "T0kenTok" not in repr(facts)


def test_a_table_is_compared_in_a_terminal(store: ef.Store, tmp_path: Path) -> None:
    """`--table` asks for a table of results, as everywhere; that of a database is `--source-table`."""
    address = f"sqlite:///{tmp_path / 'outside.sqlite'}"
    with sa.create_engine(address).begin() as connection:
        connection.execute(sa.text("CREATE TABLE payment (account TEXT)"))
    command = ["reconcile", str(tmp_path / "shop.db"), address, "--source-table", "payment", "--key", "account"]
    done = subprocess.run(
        [sys.executable, "-m", "eventfold", *command, "--table"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (8, "")
    assert "2 of 2 values by key differ" in done.stdout


# Facts and the alert


def test_results_are_recorded_and_raise_an_alert_until_both_sides_agree(store: ef.Store, tmp_path: Path) -> None:
    """A difference raises it, an agreement clears it, and a comparison that cannot be made raises it again."""
    theirs = as_csv(tmp_path, ROWS[:2])

    def step(source: Theirs) -> None:
        try:
            recorded(store, "payments", lambda: reconcile(store, OURS, source))
        except SourceUnavailable:
            return

    def opened() -> list[tuple[str, str]]:
        store.project(NotReconciled)
        return [(each.key, each.reason) for each in store.alerts.list()]

    assert opened() == []
    step(theirs)
    facts = [each.event for each in store.read(ef.Query.of(types="$reconciled", tags="$reconciled:payments"))]
    assert [(each.outcome, each.differing, each.head) for each in facts] == [("different", 1, 7)]
    assert isinstance(facts[0], Reconciled)
    assert opened() == [("payments", "1 of 2 values by key differ, first a-2: 3 events here, 2 outside.")]
    step(as_csv(tmp_path, ROWS))
    assert opened() == []
    step(Theirs(address="/nowhere/rows.csv", key="account", sum="amount", time="paid"))
    ((key, reason),) = opened()
    assert key == "payments"
    assert reason.startswith("Nothing was compared: /nowhere/rows.csv cannot be read")


def test_the_import_of_the_library_loads_no_source() -> None:
    """Nor does the comparison load what its source does not need."""
    code = "import sys, eventfold.reconcile; print({'sqlalchemy', 'pyarrow', 'urllib.request'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")
