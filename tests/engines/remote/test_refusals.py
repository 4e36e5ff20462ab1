"""What the server refuses, and what it does not offer: the same errors as from an engine in this process."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import msgspec
import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, Receipt, new_id
from eventfold.engines.remote.failures import Busy, Lost, ServerRefused, error_of
from eventfold.engines.remote.options import parse_address
from eventfold.errors import (
    EventfoldError,
    InvalidEvent,
    InvalidUrl,
    NotAStore,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)
from eventfold.ports.engine_messages import errors_by_code
from eventfold.ports.messages import AppendRequest
from eventfold.server import Settings, application
from eventfold.server.problems import problem_of
from eventfold.server.scopes import Scope
from eventfold.server.settings import EventSettings
from eventfold.testing.conformance.events import Noted, deposit
from tests.server.keys import issue, with_keys
from tests.support.servers.http import serving
from tests.support.servers.many_stores import shared

PROBLEM = "application/problem+json"


@pytest.mark.parametrize("code", sorted(errors_by_code()))
def test_each_error_of_the_library_passes_through_http(code: str) -> None:
    """Class, code, both sentences and the plain fields are the same at the client."""
    original = errors_by_code()[code]("It happened.", "Do this.", position=7, name="x", nothing=None)
    problem = problem_of(original)
    error = error_of(problem.status, PROBLEM, msgspec.json.encode(problem), "here", None)
    assert isinstance(error, EventfoldError)
    assert (type(error), error.code, error.what, error.remedy, error.fields) == (
        *(type(original), code, "It happened.", "Do this."),
        {"position": 7, "name": "x", "nothing": None},
    )


def test_an_unknown_refusal_is_clear() -> None:
    """A code of a newer server is kept, with its sentences; an unknown failure of a server may have written."""
    body = b'{"code": "of-the-future", "title": "It rains.", "detail": "Wait.", "fields": {"a": 1}}'
    error = error_of(403, PROBLEM, body, "here", None)
    assert isinstance(error, ServerRefused)
    assert (error.code, error.what, error.remedy, error.fields) == (
        *("of-the-future", "It rains.", "Wait."),
        {"a": 1, "status": 403, "code": "of-the-future"},
    )
    again = copy.copy(error)
    assert (again.code, again.fields) == (error.code, error.fields)
    with pytest.raises(Lost):
        error_of(500, PROBLEM, body, "here", None)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_answer_of_a_proxy_does_not_say_what_was_done(status: int) -> None:
    """A page of HTML with such a status means that the answer of the server is lost."""
    with pytest.raises(Lost):
        error_of(status, "text/html", b"<h1>Bad gateway</h1>", "here", None)


def test_a_busy_server_says_when_to_ask_again() -> None:
    """Limits of rate and of calls have done nothing, and name the seconds."""
    body = b'{"code": "too-many-calls", "title": "Slow down.", "detail": "Wait."}'
    found = error_of(429, PROBLEM, body, "here", "2")
    assert isinstance(found, Busy)
    assert (found.after_s, found.error.code) == (2.0, "store-busy")


@pytest.mark.parametrize(
    ("url", "base", "key"),
    [
        ("http://127.0.0.1:80", "http://127.0.0.1:80/v1/", None),
        ("http://127.0.0.1:80/", "http://127.0.0.1:80/v1/", None),
        ("http://localhost/bank", "http://localhost/v1/stores/bank/", None),
        ("https://efk_1@host/prefix/bank", "https://host/prefix/v1/stores/bank/", "efk_1"),
        ("https://host/prefix/", "https://host/prefix/v1/", None),
        ("https://host/v1/stores/a%20b", "https://host/v1/stores/a%20b/", None),
        ("HTTP://[::1]:8000/bank", "http://[::1]:8000/v1/stores/bank/", None),
    ],
)
def test_addresses(url: str, base: str, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part of the path is the name of the store, and the user is the key."""
    monkeypatch.delenv("EVENTFOLD_KEY", raising=False)
    address, _ = parse_address(url, {})
    assert (address.base, address.key) == (base, key)
    assert "efk" not in address.where


def test_a_key_comes_from_an_option_the_address_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order."""
    monkeypatch.setenv("EVENTFOLD_KEY", "three")
    assert parse_address("https://two@host", {"api_key": "one"})[0].key == "one"
    assert parse_address("https://two@host", {})[0].key == "two"
    assert parse_address("https://host", {})[0].key == "three"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://", {}),
        ("http://host:port/", {}),
        ("http://host/bank?timeout=3", {}),
        ("https://user:password@host", {}),
        ("https://host", {"timeout": 0}),
        ("https://host", {"retries": 3}),
        ("https://host", {"api_key": "with space"}),
        ("http://key@example.com/", {}),
    ],
)
def test_addresses_and_options_that_are_refused(url: str, options: dict[str, object]) -> None:
    """InvalidUrl says what to write; a key is not sent in clear text to another machine."""
    with pytest.raises(InvalidUrl) as refused:
        ef.Store(url, **options)
    assert len(refused.value.remedy) > 20


def test_a_store_that_the_server_does_not_have() -> None:
    """StoreNotFound, with what the server says."""
    with pytest.raises(StoreNotFound, match="no such store"):
        ef.Store(f"{shared().url}/never-there")


def test_a_web_server_that_is_not_eventfold() -> None:
    """NotAStore, and not an error of a decoder."""

    async def page(scope: dict[str, str], receive: object, send: object) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/html")]})  # type: ignore[operator]
            await send({"type": "http.response.body", "body": b"<h1>Not found</h1>"})  # type: ignore[operator]

    with serving(page, lifespan="off") as url, pytest.raises(NotAStore):
        ef.Store(f"{url}/bank")


def test_a_server_that_is_not_there() -> None:
    """StoreUnavailable at once: patience begins when a server was reached once."""
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        ef.Store("http://127.0.0.1:9")


def test_what_a_server_cannot_offer_is_refused_with_a_remedy(address: str, tmp_path: Path) -> None:
    """Appends in the caller's transaction, read models within appends, and rows without a target."""
    with ef.Store(address) as store:
        for call in (
            lambda: store.in_transaction(object()).append(Noted("a")),
            lambda: next(iter(store.follow(name="billing"))),
        ):
            with pytest.raises(ef.NotSupported) as refused:
                call()
            assert refused.value.fields["engine"] == "remote"
            assert len(refused.value.remedy) > 20


class Amounts(ef.Projection, name="remote_amounts"):
    """The number of events of an account."""

    account: str
    events: int = 0

    def evolve(self, event: deposit("x").__class__) -> None:  # type: ignore[valid-type]
        """Count one."""
        self.events += 1


def test_read_models_and_named_followers_have_a_target_of_their_own(address: str, tmp_path: Path) -> None:
    """With `target=` rows, progress and waiting work as on any other store, in both modes."""
    target = str(tmp_path / "rows.db")
    with ef.Store(address, target=target) as store:
        store.append(deposit("a-1"), deposit("a-1"))
        store.project(Amounts)
        assert [(row.account, row.events) for row in store.rows(Amounts)] == [("a-1", 2)]
        with store.follow(name="billing") as follower:
            next(iter(follower))
            follower.acknowledge()
        assert {each.name for each in store.projections.status()} >= {"remote_amounts"}

    async def again() -> list[int]:
        async with ef.AsyncStore(address, target=target) as store:
            receipt = await store.append(deposit("a-1"))
            await store.project(Amounts)
            await store.wait(Amounts, receipt.last)
            async with store.follow(name="billing") as follower:
                return [(await anext(aiter(follower))).position, *[row.events for row in await store.rows(Amounts)]]

    assert asyncio.run(again()) == [2, 3]


def test_keys_and_their_scopes(tmp_path: Path) -> None:
    """A store needs a key with the scopes of what it does; a narrowed key has no store, and is sent to other routes."""
    path = str(tmp_path / "log.db")
    ef.Store(path).close()
    reader = issue(tmp_path, "reader", (Scope.READ, Scope.READ_PAYLOAD)).key
    writer = issue(tmp_path, "writer").key
    narrowed = issue(tmp_path, "narrowed", tag_prefixes=("account:",)).key
    settings = with_keys(tmp_path, Settings(events=EventSettings(accept_unknown=True)))
    with serving(application(path, settings=settings)) as url:
        with pytest.raises(ServerRefused) as refused:
            ef.Store(url)
        assert refused.value.code == "unauthenticated"
        with pytest.raises(ServerRefused) as refused:
            ef.Store(url, api_key=narrowed)
        assert refused.value.code == "outside-scope"
        with ef.Store(url, api_key=writer) as store:
            store.append(Noted("a"))
            (recorded,) = store.read()
            assert recorded.metadata["actor"] == "writer"
        with ef.Store(url, api_key=reader) as store:
            assert store.head() == 1
            with pytest.raises(ServerRefused) as refused:
                store.append(Noted("b"))
            assert (refused.value.code, store.head()) == ("forbidden", 1)


def test_events_that_the_server_does_not_accept(tmp_path: Path) -> None:
    """A type that the server does not know is InvalidEvent at the client, and nothing is written."""
    path = str(tmp_path / "log.db")
    with serving(application(ef.AsyncStore(path))) as url, ef.Store(url) as store:
        with pytest.raises(InvalidEvent, match="not known to this server"):
            store.append(Noted("a"))
        assert store.head() == 0


def test_an_append_that_is_not_valid_does_not_affect_others_of_the_same_call(address: str) -> None:
    """The appends of several callers are sent together: each has its own outcome."""

    def request(data: bytes) -> AppendRequest:
        return AppendRequest((NewEvent(new_id(), "conformance.number", 1, data, ()),))

    with ef.Store(address) as store:
        outcomes = run(store.engine.append_many([request(b"1"), request(b"{"), request(b"2")]))
        assert [type(outcome) for outcome in outcomes] == [Receipt, InvalidEvent, Receipt]
        assert store.head() == 2


def test_a_server_in_read_only_mode(tmp_path: Path) -> None:
    """Reads work, and an append is StoreReadOnly."""
    path = str(tmp_path / "log.db")
    with ef.Store(path) as local:
        local.append(Noted("a"))
    with serving(application(path, settings=Settings(read_only=True))) as url, ef.Store(url) as store:
        assert store.head() == 1
        with pytest.raises(StoreReadOnly):
            store.append(Noted("b"))


def test_a_new_epoch_is_noticed_by_the_next_answer(address: str) -> None:
    """A condition that was read before is a conflict afterwards."""
    engine = shared().app.server.stores[address.rpartition("/")[2]].engine
    with ef.Store(address) as store:
        store.append(Noted("a"))
        read, before = store.cursor(), store.engine.epoch
        engine.epoch = before + 1  # type: ignore[misc]
        with pytest.raises(ef.AppendConflict) as refused:
            store.append(Noted("b"), unless=ef.Query(), after=read)
        assert (refused.value.fields["read_in"], refused.value.fields["epoch"]) == (before, before + 1)
        assert (store.head(), store.engine.epoch) == (1, before + 1)


def test_another_store_at_the_same_address_is_refused(address: str) -> None:
    """Nothing is written to it: its positions mean other events."""
    engine = shared().app.server.stores[address.rpartition("/")[2]].engine
    with ef.Store(address) as store:
        store.append(Noted("a"))
        engine.store_id = "f" * 32  # type: ignore[misc]
        with pytest.raises(StoreNotFound, match="not here any more"):
            store.append(Noted("b"))
        with pytest.raises(StoreNotFound):
            store.head()
    with ef.Store(address) as again:
        assert again.count() == 1


def test_a_backup_is_a_file_here(tmp_path: Path) -> None:
    """It is written as a whole or not at all, and over nothing."""
    url = shared().add(str(tmp_path / "log.db"))
    try:
        with ef.Store(url) as store:
            store.append(Noted("a"))
            store.backup(str(tmp_path / "copy.db"))
            with ef.Store(str(tmp_path / "copy.db")) as copy:
                assert copy.count() == 1
            for place in ("copy.db", "missing/copy.db"):
                with pytest.raises(EventfoldError):
                    store.backup(str(tmp_path / place))
            assert not (tmp_path / "missing").exists()
    finally:
        shared().remove(url)


def test_a_key_is_not_shown() -> None:
    """Neither the text form of a store nor an error has the key of its address."""
    store = ef.AsyncStore("https://efk_secret@host/bank")
    assert "efk_secret" not in repr(store)
    with pytest.raises(EventfoldError) as refused:
        ef.Store("http://efk_secret@127.0.0.1:9/bank")
    assert "efk_secret" not in str(refused.value)
    assert "efk_secret" not in repr(refused.value.fields)
