"""A load begins with what histories prove: births and changes with their moments, before the opening of the row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.migrate.connection import connect
from eventfold.migrate.histories import changes
from eventfold.migrate.inspection import Decisions, inspect
from eventfold.migrate.mapping import Mapping, read_mapping
from eventfold.migrate.progress import TYPES
from eventfold.migrate.reflection import reflect
from eventfold.migrate.session import open_session
from tests.migrate.applications import make


def loaded(address: str, folder: Path, hide: list[str] | None = None) -> tuple[list[Any], Mapping]:
    """Load a copy of a SQLite file as inspect proposes it, and return the events of rows."""
    copy = str(folder / "copy.db")
    shutil.copy(address, copy)
    found = inspect(copy, folder / "out")
    kept = [name for each in found.open if (name := each.removeprefix("the column ")) not in (hide or ())]
    inspect(copy, folder / "out", Decisions(keep=kept, hide=hide or ()))
    mapping = read_mapping(folder / "out" / "migration.toml")
    with ef.Store(str(folder / "store.db")) as store:
        with open_session(store, mapping, copy, hide=lambda domain, value: f"hidden {len(str(value))}") as session:
            session.install()
            dry = session.dry_run()
            done = session.load()
            assert dry.types and sum(dry.types.values()) == done.events
        return [each for each in store.read(raw=True) if each.event.type not in TYPES], mapping


def of(events: list[Any], tag: str) -> list[tuple[str, Any]]:
    """Return types and data of the events with a tag."""
    return [(each.event.type, each.event.json()) for each in events if tag in each.tags]


def test_births_and_changes_precede_the_opening(django_histories: str, tmp_path: Path) -> None:
    """Of three packages; a row that was deleted has its facts and no opening; who did it, if the history knows."""
    events, _ = loaded(django_histories, tmp_path)
    assert of(events, "article:1") == [
        ("ArticleCreated", {"id": 1, "title": "Tea", "price": "1.5"}),
        ("ArticleChanged", {"id": 1, "price": "2"}),
        ("ArticleImported", {"id": 1, "title": "Green tea", "price": "2"}),
    ]
    assert [name for name, _ in of(events, "article:2")] == ["ArticleCreated", "ArticleRemoved"]
    assert [name for name, _ in of(events, "page:1")] == ["PageCreated", "PageChanged", "PageImported"]
    members = [name for name, data in of(events, "member:1") if data["id"] == 1]
    assert members == ["MemberCreated", "MemberChanged", "MemberImported"]
    proved = [each for each in events if each.metadata["evidence"] == "history"]
    assert all(each.occurred is not None for each in proved)
    assert {each.metadata["op"] for each in proved} == {"fact"}


def test_states_of_oscar_and_tickets_of_trac(trac: str, tmp_path: Path) -> None:
    """The last fact of each ticket says what its opening says; a second load writes nothing."""
    events, _ = loaded(trac, tmp_path)
    for number in (1, 2, 3, 4):
        found = of(events, f"ticket:{number}")
        names = [name for name, _ in found]
        assert names[0] == "TicketCreated" and names[-1] == "TicketImported"
        statuses = [data["status"] for _, data in found if "status" in data]
        assert statuses[0] == "new" and statuses[-1] == statuses[-2 if len(statuses) > 1 else -1]
    shop = tmp_path / "oscar.db"
    make("oscar", shop, 3)
    (tmp_path / "shop").mkdir()
    events, mapping = loaded(str(shop), tmp_path / "shop", hide=["auth_user.email"])
    own = mapping.tables["order_order"]
    assert own.transition is not None
    order = [name for name, _ in of(events, "order:3") if name in (own.opening, *own.transition.types.values())]
    assert order[-1] == "OrderImported" and "OrderShipped" in order
    assert mapping.tables["auth_user"].hide == ("email",)
    users = [each.event.json() for each in events if each.event.type == "UserImported"]
    assert users and {each["email"] for each in users} == {"hidden 17"}
    with_history = connect(str(shop))
    schema = reflect(with_history)
    history = mapping.tables["order_orderstatuschange"].history
    assert history is not None
    assert len(list(changes(with_history, schema, "order_orderstatuschange", history))) == 3
    with_history.close()
