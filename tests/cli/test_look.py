"""How it looks: tables on a terminal of 80 columns, whose times stand still because the clock does."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from eventfold.cli.formatting import change_lines, name_width, render_change_lines
from eventfold.cli.output import Column, fit_widths
from eventfold.core.envelope import NewEvent
from eventfold.core.state import ABSENT, Change
from eventfold.store import Store
from tests.cli.commands import on_terminal, plain, run, too_wide
from tests.cli.stores import Clock, given


def looks(*words: str) -> str:
    """The table a command draws, at 80 columns."""
    ran = run(*words, "--table")
    assert ran.code == 0, ran.err
    assert not too_wide(ran.out)
    return plain(ran.out)


def text(block: str) -> str:
    """An expected table."""
    return dedent(block).strip("\n")


def test_events(steady: str) -> None:
    """A date stands above the events of its day; what the tags say already is not said again."""
    assert looks("read", steady, "--until", "5") == text("""
        position  time UTC  type       tags                 data
        ───────────────────────────────────────────────────────────────────────
        2026-11-23
               1  12:00:01  Opened     account:a-1          owner="Ann Example"
               2  12:00:02  Deposited  account:a-1          amount=80
               3  12:00:03  Opened     account:a-2          owner=Bob
               4  12:00:04  Withdrawn  account:a-1          amount=30
               5  12:00:04  Deposited  account:a-2 vip:yes  amount=30
    """)


def test_events_that_occurred_at_some_time(steady: str) -> None:
    """Then that is the time shown; of events that do not say, it is the time of recording."""
    assert looks("read", steady, "--after", "4") == text("""
        position  occurred UTC      type       tags                 data
        ───────────────────────────────────────────────────────────────────────────────
        recorded 2026-11-23
               5  2026-11-23 12:00  Deposited  account:a-2 vip:yes  amount=30
               6  2026-11-20 00:00  Closed     account:a-2          reason="moved away"
    """)


def test_events_that_say_much() -> None:
    """Where tags and payload would be cut in most rows, the payload has a line of its own."""
    url = "memory:talkative"
    with Store(url, clock=Clock()) as store:
        events = [
            given(n, "FlightScheduled", f"f-{n}", tags=("carrier:UA", "day:2013-01-01"), departs="x" * 70)
            for n in (1, 2)
        ]
        store.append_encoded(*events)
    assert looks("read", url) == text("""
        position  time UTC  type             tags, and data below them
        ────────────────────────────────────────────────────────────────────────────────
        2026-11-23
               1  12:00:01  FlightScheduled  account:f-1 carrier:UA day:2013-01-01
                            departs=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
               2  12:00:01  FlightScheduled  account:f-2 carrier:UA day:2013-01-01
                            departs=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
    """)


def test_a_wide_table_cuts_nothing(steady: str) -> None:
    """Every key of a line is there, in full."""
    shown = plain(run("read", steady, "--after", "5", "--table", "--wide").out)
    assert "…" not in shown
    for each in ("2026-11-20T00:00:00.000000Z", 'reason="moved away"', "account=a-2", "01920000-0000"):
        assert each in shown


def test_types_and_tags(steady: str) -> None:
    """Names and numbers, with thousands grouped."""
    assert looks("types", steady) == text("""
        type       events  first  last
        ──────────────────────────────
        Closed          1      6     6
        Deposited       2      2     5
        Opened          2      1     3
        Withdrawn       1      4     4
    """)
    assert looks("tags", steady) == text("""
        tag          events
        ───────────────────
        account:a-1       3
        account:a-2       3
        vip:yes           1
    """)
    assert looks("tags", steady, "--keys") == text("""
        key
        ────────
        account:
        vip:
    """)
    assert looks("tags", steady, "--keys", "--counts") == text("""
        key       different tags  events
        ────────────────────────────────
        account:               2       6
        vip:                   1       1
    """)
    assert looks("tags", steady, "account:", "--limit", "1") == text("""
        tag          events
        ───────────────────
        account:a-1       3

        1 tag shown; there are more.
        --limit N or --all shows more; --after account:a-1 shows the next ones.
    """)
    assert run("tags", steady, "account:", "--after", "account:a-1").lines == [
        {"tag": "account:a-2", "count": 3, "first": 3, "last": 6}
    ]
    assert run("types", steady).lines[0] == {"type": "Closed", "count": 1, "first": 6, "last": 6}
    assert run("tags", steady, "--no-counts", "--after", "account:a-1").lines[0] == {"tag": "account:a-2"}
    assert looks("tags", steady, "account:", "--no-counts", "--limit", "1") == text("""
        tag
        ───────────
        account:a-1

        1 tag shown; there are more.
        --limit N or --all shows more; --after account:a-1 shows the next ones.
    """)
    assert looks("tags", steady, "no", "--no-counts").strip() == "No such tags."
    assert run("tags", steady, "--keys", "--counts").lines[1] == {"key": "vip:", "tags": 1, "count": 1}
    assert run("tags", steady, "--keys").lines == [{"key": "account:"}, {"key": "vip:"}]
    assert run("tags", steady, "--keys", "--after", "account:a-1").lines == [{"key": "vip:"}]
    assert run("tags", steady, "a", "--keys").lines == [{"key": "account:"}]
    assert looks("tags", steady, "no", "--keys").strip() == "No such tags."


def test_last_values_and_their_history(steady: str) -> None:
    """Which event gave a field its value, and every change on the way."""
    assert looks("state", steady, "--tag", "account:a-2") == text("""
        account:a-2  (3 events up to position 6)
        field    last value  position  by         when UTC
        ─────────────────────────────────────────────────────────────
        account  a-2                6  Closed     2026-11-20 00:00:00
        owner    Bob                3  Opened     2026-11-23 12:00:03
        amount   30                 5  Deposited  2026-11-23 12:00:04
        reason   moved away         6  Closed     2026-11-20 00:00:00
    """)
    assert looks("history", steady, "--tag", "account:a-1") == text("""
        account:a-1  (step by step)
        position  when UTC             type, and its changes below
        ──────────────────────────────────────────────────────────
               1  2026-11-23 12:00:01  Opened  actor=eve
                  account  a-1
                  owner    Ann Example
               2  2026-11-23 12:00:02  Deposited
                  amount   80
               4  2026-11-23 12:00:04  Withdrawn
                  amount   80 → 30
    """)
    assert looks("state", steady, "--tag", "account:a-1", "--diff", "1", "now") == text("""
        account:a-1  (1 → 6)
        amount  30
    """)


def test_a_history_names_the_actor_and_with_wide_all_metadata(tmp_path: Path) -> None:
    """Who caused an event is on its line; control characters in metadata do not reach the terminal."""
    url = str(tmp_path / "caused.db")
    with Store(url) as store, store.context(actor="clerk\x1b[31m 4", correlation_id="ticket-881"):
        store.append_encoded(NewEvent.of("Raised", b'{"cents":5}', tags=["account:a-1"]))
    (shown,) = [line for line in looks("history", url, "--tag", "account:a-1").splitlines() if "Raised" in line]
    assert shown.endswith(r'Raised  actor="clerk\u001b[31m 4"') and "ticket-881" not in shown
    whole = run("history", url, "--tag", "account:a-1", "--wide", "--table").out
    (wide,) = [line for line in whole.splitlines() if "Raised" in line]
    assert wide.endswith("correlation_id=ticket-881")


def test_objects_change_field_by_field() -> None:
    """An object that appears or changes is printed under its name; a removed one is not."""
    changes = {
        "legs[7]": Change(ABSENT, {"from": "JFK", "to": None}),
        "legs[8]": Change({"from": "JFK", "to": None}, {"from": "JFK", "to": "BUF"}),
        "legs[9]": Change({"from": "JFK"}, ABSENT),
        "count": Change(1, 2),
    }
    lines = list(change_lines(changes))
    assert [str(line).rstrip() for line in render_change_lines(lines, 2, name_width(lines, wide=False))] == [
        "  legs[7]",
        "    from   JFK",
        "    to     null",
        "  legs[8]",
        "    to     null → BUF",
        "  legs[9]  from=JFK → (removed)",
        "  count    1 → 2",
    ]


def test_a_state(bank: str, tmp_path: Path) -> None:
    """The question above, the answer below."""
    from tests.cli.commands import APPS, process

    words = ("--import-path", str(APPS), "--table")
    ran = process("state", bank, "bank:Account", "a-1", *words, folder=tmp_path)
    assert plain(ran.out) == text("""
        Account  account=a-1  (at position 6)
        field    value
        ────────────────────
        owner    Ann Example
        balance  50
    """)


def test_facts(bank: str) -> None:
    """Sizes as people say them, and what a power cut may take: nothing."""
    facts = dict(line.split("  ", 1) for line in looks("stats", bank).split("\n")[2:])
    assert {
        name: value.strip() for name, value in facts.items() if name in ("head", "epoch", "durability", "engine")
    } == {
        "head": "6",
        "epoch": "1",
        "durability": "full",
        "engine": "sqlite",
    }
    assert facts["size"].strip().endswith("KiB")
    (found,) = run("stats", bank).lines
    assert found["head"] == 6 and len(found["store"]) == 32 and isinstance(found["bytes"], int)
    assert found["last_recorded"].endswith("Z")


def test_an_empty_store_says_so() -> None:
    """Instead of an empty table."""
    for verb in ("read", "types", "tags"):
        assert "No " in looks(verb, "memory:")
    assert "head" in looks("stats", "memory:")


def awkward() -> str:
    """A store of things that want to break a table: long, wide, empty, nested, and escape sequences."""
    url = "memory:awkward-look"
    with Store(url) as store:
        if store.head():
            return url
    values = [
        "x" * 500,
        "漢字" * 60,
        "\x1b[31mred\x07",
        "",
        "a\nb\tc",
        [1, {"b": [None, True]}],
        {"deep": {"er": "ü" * 90}},
        None,
        1e300,
    ]
    lines = [
        {
            "type": "T" * 200 if n == 0 else f"Awkward{n}",
            "tags": [f"key-{k}:{'v' * 30}" for k in range(n + 1)],
            "data": each,
        }
        for n, each in enumerate(
            [*({"field" * (n + 1): value, "b": value} for n, value in enumerate(values)), [1, 2], "text", 7]
        )
    ]
    lines.append({"type": "Late", "data": {}, "occurred": "2013-01-01T10:00:00Z"})
    assert run("append", url, input="\n".join(json.dumps(line) for line in lines)).code == 0
    return url


@pytest.mark.parametrize(
    "words",
    [
        ["read"],
        ["read", "--backwards"],
        ["tail", "--once"],
        ["types"],
        ["tags"],
        ["tags", "--keys"],
        ["tags", "--keys", "--counts"],
        ["stats"],
        ["state", "--tag", f"key-0:{'v' * 30}"],
        ["history", "--tag", f"key-0:{'v' * 30}"],
        ["state", "--tag", f"key-0:{'v' * 30}", "--diff", "0", "now"],
    ],
)
def test_nothing_is_wider_than_the_terminal_or_drives_it(words: list[str]) -> None:
    """Whatever a store holds, no line is over 80 columns, and no control character gets through."""
    ran = run(words[0], awkward(), *words[1:], "--table")
    assert ran.code == 0, ran.err
    assert not too_wide(ran.out)
    assert "\x1b" not in ran.out and "\x07" not in ran.out


def test_elastic_columns_share_what_is_left() -> None:
    """The short ones get what they need, the long ones the rest; rigid ones are never cut."""
    columns = (Column("a"), Column("b", elastic=True), Column("c", elastic=True), Column("d", elastic=True))
    assert fit_widths(columns, [10, 5, 12, 100], 80) == [10, 5, 12, 47]
    assert fit_widths(columns, [10, 50, 60, 100], 80) == [10, 21, 21, 22]
    assert fit_widths(columns, [10, 5, 5, 5], 80) == [10, 5, 5, 5]
    assert fit_widths(columns, [60, 50, 60, 100], 80) == [60, 6, 6, 6]


def test_a_terminal_gets_a_table_with_modes_and_a_pipe_does_not(bank: str, tmp_path: Path) -> None:
    """Without a flag: tables on a terminal, lines in a pipe; NO_COLOR is heeded."""
    code, shown = on_terminal("read", bank, folder=tmp_path)
    assert code == 0
    assert "\x1b[" in shown and not too_wide(shown)
    assert plain(shown).startswith("position  ")
    assert len(plain(shown).split("\n")) == 9
    _, bare = on_terminal("read", bank, folder=tmp_path, NO_COLOR="1")
    assert plain(bare) == plain(shown) and "\x1b[3" not in bare.replace("\x1b[3m", "")
    _, forced = on_terminal("read", bank, "--json", folder=tmp_path)
    assert [json.loads(line)["position"] for line in forced.splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_terminal_shows_fifty_events_and_says_how_to_see_more(tmp_path: Path) -> None:
    """A million events do not run through the window; --all lets them."""
    url = str(tmp_path / "many.db")
    assert run("append", url, "--create", input="\n".join(['{"type":"Counted"}'] * 60)).code == 0
    code, shown = on_terminal("read", url, folder=tmp_path)
    assert code == 0
    assert plain(shown).endswith(
        "50 events shown; there are more.\n--limit N or --all shows more; --after 50 shows the next ones."
    )
    assert "    50  " in plain(shown) and "    51  " not in plain(shown)
    assert "    60  " in plain(on_terminal("read", url, "--all", folder=tmp_path)[1])
    assert plain(on_terminal("read", url, "--count", folder=tmp_path)[1]) == "60"
    history = plain(on_terminal("history", url, "--type", "Counted", folder=tmp_path)[1])
    assert history.endswith(
        "50 steps shown; there are more.\n--limit N or --all shows more; --after POSITION shows the next ones."
    )


def test_an_error_is_red_on_a_terminal(tmp_path: Path) -> None:
    """Two sentences, each on its line."""
    code, shown = on_terminal("read", "nothing.db", folder=tmp_path, columns=60)
    assert code == 4
    assert "\x1b[1;31m" in shown
    assert plain(shown).startswith("There is no store at") and "eventfold init" in plain(shown)
