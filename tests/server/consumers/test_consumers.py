"""Consumers over HTTP: deliveries, order by key, leases, parked events, operators, races and kills."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.scopes import ANYONE, Caller, Scope
from tests.support.servers import postgres
from tests.support.servers.http import ServerProcess, serving
from tests.support.workers import Refused, Worker, positions

WAIT_S = 60.0


def noted(number: int, *tags: str, type: str = "Noted") -> ef.NewEvent:
    """An event with a number."""
    return ef.NewEvent.of(type, b'{"n":%d}' % number, tags=tags or ("all",))


@contextmanager
def served(path: Path) -> Iterator[tuple[str, ef.Store]]:
    """A store in a file, and the address of a server of it."""
    with ef.Store(str(path)) as store, serving(application(str(path))) as url:
        yield url, store


def append(store: ef.Store, count: int, *tags: str) -> None:
    """Append events one by one."""
    for n in range(count):
        store.append_encoded(noted(n, *tags))


def test_events_are_delivered_once_acknowledged_and_counted(tmp_path: Path) -> None:
    """Until they are acknowledged they are in flight; then the consumer's position advances, and its ledger holds."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        append(store, 5)
        created = worker.create(max_in_flight=4)
        assert (created["name"], created["lag"], created["position"], created["state"]) == ("mail", 5, 0, "idle")
        assert created["sentence"] == "Not delivered yet; 5 events wait: start a worker that receives from it."
        first = worker.receive(10)
        assert positions(first) == [1, 2, 3, 4]
        assert {each["attempt"] for each in first} == {1}
        assert first[0]["event"]["data"] == {"n": 0}
        assert worker.receive(10) == []
        assert worker.status()["in_flight"] == 4
        assert worker.acknowledge(first[1], first[3]) == {"done": 2, "stale": []}
        assert positions(worker.receive(10)) == [5]
        assert worker.acknowledge(*first) == {"done": 4, "stale": []}
        status = worker.status()
        assert (status["position"], status["lag"], status["in_flight"]) == (4, 1, 1)
        assert all(proof.proved for proof in store.projections.verify("mail"))


def test_a_receive_waits_for_an_event(tmp_path: Path) -> None:
    """It returns when one is appended, and with nothing after its time."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        worker.create(query={"items": [{"types": ["Wanted"]}]})
        assert worker.receive(wait=0.05) == []
        timer = threading.Timer(0.1, lambda: store.append_encoded(noted(1), noted(2, type="Wanted")))
        timer.start()
        assert positions(worker.receive(wait=WAIT_S)) == [2]
        timer.join()


def test_events_of_one_key_come_in_order_one_at_a_time(tmp_path: Path) -> None:
    """Events of other keys pass them."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        store.append_encoded(
            noted(1, "k:a"), noted(2, "k:a"), noted(3, "k:b"), noted(4), noted(5, "k:a", "k:b"), noted(6, "k:b")
        )
        worker.create(key="k")
        taken = worker.receive(10)
        assert positions(taken) == [1, 3, 4]
        worker.acknowledge(taken[0])
        second = worker.receive(10)
        assert positions(second) == [2]
        worker.acknowledge(second[0])
        assert worker.receive(10) == []
        worker.acknowledge(taken[1])
        both = worker.receive(10)
        assert positions(both) == [5]
        worker.acknowledge(*both)
        assert positions(worker.receive(10)) == [6]


def test_an_event_whose_lease_ends_is_delivered_again_and_then_parked(tmp_path: Path) -> None:
    """With its number of attempts; a token of an earlier delivery is stale. Later events of its key wait behind it."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        store.append_encoded(noted(1, "k:a"), noted(2, "k:a"), noted(3, "k:b"))
        noted_only = {"items": [{"types": ["Noted"]}]}  # not the operators' commands, which are events too
        worker.create(key="k", lease_seconds=0.1, attempts=2, query=noted_only)
        (first, other) = worker.receive(2)
        worker.acknowledge(other)
        (again,) = worker.receive(1, wait=WAIT_S)
        assert (again["event"]["position"], again["attempt"]) == (1, 2)
        assert worker.acknowledge(first) == {"done": 0, "stale": [first["token"]]}
        assert worker.receive(1, wait=0.5) == []
        entries = worker.call("GET", "/parked")["events"]
        assert [(each["position"], each["state"], each["attempts"]) for each in entries] == [
            (1, "parked", 2),
            (2, "parked", 0),
        ]
        assert "not acknowledged within 0.1 s" in entries[0]["reason"]
        status = worker.status()
        assert (status["parked"], status["state"]) == (2, "parked")
        assert worker.call("POST", "/retry", {"position": None}) == {"due": 2}
        (once_more,) = worker.receive(1)
        assert (once_more["event"]["position"], once_more["attempt"]) == (1, 3)
        worker.acknowledge(once_more)
        (behind,) = worker.receive(1)
        assert behind["event"]["position"] == 2
        worker.acknowledge(behind)
        status = worker.status()
        assert (status["parked"], status["position"], status["lag"]) == (0, 3, 0)
        assert all(proof.proved for proof in store.projections.verify("mail"))


def test_a_worker_rejects_an_event_with_a_delay_or_parks_it(tmp_path: Path) -> None:
    """The reason is shown; an operator skips it, and the events behind it go on."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        store.append_encoded(noted(1, "k:a"), noted(2, "k:a"))
        worker.create(key="k", query={"items": [{"types": ["Noted"]}]})  # not the operators' commands
        (taken,) = worker.receive()
        began = time.monotonic()
        assert worker.reject(taken, delay=0.3) == {"done": 1, "stale": []}
        assert worker.reject(taken)["stale"] == [taken["token"]]
        assert worker.receive() == []
        (again,) = worker.receive(wait=WAIT_S)
        assert time.monotonic() - began >= 0.25
        assert (again["event"]["position"], again["attempt"]) == (1, 2)
        worker.reject(again, park=True, reason="no such mailbox")
        assert worker.call("GET", "/parked")["events"][0]["reason"] == "no such mailbox"
        store.projections.skip("mail", 1, because="the mailbox was closed")
        (behind,) = worker.receive(wait=WAIT_S)
        assert behind["event"]["position"] == 2
        worker.acknowledge(behind)
        assert worker.status()["skipped"] == 1
        assert all(proof.proved for proof in store.projections.verify("mail"))


def test_where_a_consumer_begins_and_what_may_change_later(tmp_path: Path) -> None:
    """Now, after a position or a cursor. Its limits may change; another query or key is refused."""
    with served(tmp_path / "a.db") as (url, store):
        append(store, 3)
        for name, begin, expected in (("now", "now", []), ("two", 2, [3]), ("one", str(store.cursor(1)), [2, 3])):
            with Worker(url, name) as worker:
                worker.create(from_=begin)
                assert positions(worker.receive(10)) == expected
                assert worker.create(from_=begin, lease_seconds=5)["lease_seconds"] == 5
                with pytest.raises(Refused) as refused:
                    worker.create(key="other")
                assert (refused.value.status, refused.value.problem["code"]) == (409, "projection-changed")


def test_a_consumer_with_a_filter_gets_the_events_that_match(tmp_path: Path) -> None:
    """The others count as handled in its ledger. A filter whose meaning changes with the time is refused."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        append(store, 6)
        for text in ("since:2d", "nokey:1"):
            with pytest.raises(Refused) as refused:
                worker.create(filter=text)
            assert refused.value.status == 422
        worker.create(filter="data.n>3")
        taken = worker.receive(10)
        assert positions(taken) == [5, 6]
        worker.acknowledge(*taken)
        assert worker.status()["position"] == 6
        assert all(proof.proved for proof in store.projections.verify("mail"))


def test_consumers_are_listed_and_removed(tmp_path: Path) -> None:
    """A removed one is unknown; a name of a follower is refused; so are invalid names and bodies."""
    with served(tmp_path / "a.db") as (url, store):
        append(store, 2)
        with Worker(url, "mail") as worker, Worker(url, "audit") as audit, Worker(url, "Bad") as bad:
            worker.create(), audit.create()
            worker.acknowledge(*worker.receive(1))
            everything = Worker(url, "mail")
            everything.path = "/v1/consumers"
            assert [each["name"] for each in everything.call("GET")["consumers"]] == ["audit", "mail"]
            everything.close()
            assert worker.call("DELETE") == {"name": "mail", "position": 1}
            for call in (worker.status, worker.receive, lambda: worker.call("DELETE")):
                with pytest.raises(Refused) as refused:
                    call()
                assert refused.value.status == 404
            for call in (
                bad.create,
                lambda: audit.create(attempts=0),
                lambda: audit.call("POST", "/acknowledge", {"tokens": ["x"]}),
            ):
                with pytest.raises(Refused) as refused:
                    call()
                assert refused.value.status == 422
        with store.follow(name="taken", raw=True) as follower:
            next(iter(follower))
            follower.acknowledge()
        with Worker(url, "taken") as worker, pytest.raises(Refused) as refused:
            worker.create()
        assert refused.value.status == 422


def test_what_a_caller_does_to_a_consumer_is_in_the_log_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry and a removal."""

    async def authenticate(_: object, __: Request, ___: object) -> Caller:
        return Caller(name="operator", identity="key:1", scopes=frozenset(Scope))

    monkeypatch.setattr("eventfold.server.asgi.Server.authenticate", authenticate)
    with ef.Store(str(tmp_path / "a.db")) as store:
        append(store, 1)
    with TestClient(application(str(tmp_path / "a.db"))) as client:
        client.put("/v1/consumers/mail", json={})
        (delivery,) = client.post("/v1/consumers/mail/receive", json={}).json()["deliveries"]
        client.post("/v1/consumers/mail/reject", json={"tokens": [delivery["token"]], "park": True})
        assert client.post("/v1/consumers/mail/retry", json={"position": 1}).json() == {"due": 1}
        assert client.delete("/v1/consumers/mail").status_code == 200
    with ef.Store(str(tmp_path / "a.db")) as read:
        facts = list(read.read(ef.Query.of(tags="$projection:mail")))
    assert [(each.event.act, each.metadata.actor) for each in facts] == [("retry", "operator"), ("forget", "operator")]


def test_a_paused_consumer_delivers_nothing(tmp_path: Path) -> None:
    """Until it is resumed; the answer says why."""
    with served(tmp_path / "a.db") as (url, store), Worker(url, "mail") as worker:
        append(store, 2)
        worker.create()
        taken = worker.receive()
        store.projections.pause("mail", because="the mail server is being moved")
        with pytest.raises(Refused) as refused:
            while True:
                worker.acknowledge(*taken)
                taken = worker.receive(wait=0.1) or taken
        assert refused.value.status == 409
        assert "moved" in refused.value.problem["title"]
        store.projections.resume("mail")
        assert worker.acknowledge(*taken)["stale"] == []


def test_competing_workers_get_every_event_once_and_each_key_in_order(tmp_path: Path) -> None:
    """Six workers of which some forget to acknowledge, while events are appended."""
    keys, total, lease = 7, 210, 2.0
    with served(tmp_path / "a.db") as (url, store):
        with Worker(url, "mail") as worker:
            worker.create(key="k", lease_seconds=lease, attempts=50, max_in_flight=20)
        handled: list[tuple[int, int]] = []
        at_work: set[str] = set()
        problems: list[str] = []
        lock = threading.Lock()

        def work(number: int) -> None:
            with Worker(url, "mail") as worker:
                while len({position for position, _ in handled}) < total and not problems:
                    asked = time.monotonic()
                    for delivery in worker.receive(3, wait=0.2):
                        if time.monotonic() - asked > lease / 2:
                            break  # on a loaded machine: the leases of these may end before they are handled
                        (tag,) = delivery["event"]["tags"]
                        position = delivery["event"]["position"]
                        if (position + number) % 17 == 0 and delivery["attempt"] == 1:
                            continue  # this worker forgets it
                        with lock:
                            if tag in at_work:
                                problems.append(f"two events of {tag} are in flight")
                            at_work.add(tag)
                        time.sleep(0.002)
                        with lock:
                            at_work.discard(tag)
                            if worker.acknowledge(delivery)["done"]:
                                handled.append((position, number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for n in range(total):
            store.append_encoded(noted(n, f"k:{n % keys}"))
        for thread in threads:
            thread.join(WAIT_S)
        assert problems == []
        assert sorted(position for position, _ in handled) == list(range(1, total + 1))
        for key in range(keys):
            of_key = [position for position, _ in handled if (position - 1) % keys == key]
            assert of_key == sorted(of_key)
        assert all(proof.proved for proof in store.projections.verify("mail"))


def test_a_killed_server_loses_and_skips_nothing(tmp_path: Path) -> None:
    """Tokens of deliveries before the kill stay valid; what was acknowledged is not delivered again."""
    path = tmp_path / "a.db"
    with ef.Store(str(path)) as store, ServerProcess(str(path)) as server:
        for n in range(12):
            store.append_encoded(noted(n, f"k:{n % 4}"))
        with Worker(server.url, "mail") as worker:
            worker.create(key="k", lease_seconds=30.0)
            taken = worker.receive(10)
            assert positions(taken) == [1, 2, 3, 4]
            worker.acknowledge(taken[1], taken[2])
        server.stop(signal.SIGKILL)
        server.start()
        with Worker(server.url, "mail") as worker:
            more = worker.receive(10)
            assert positions(more) == [6, 7]  # the next of the finished keys; the others are still in flight
            assert worker.acknowledge(taken[0], taken[3], *more) == {"done": 4, "stale": []}
        server.stop(signal.SIGKILL)
        server.start()
        with Worker(server.url, "mail") as worker:
            finished = list[int]()
            while rest := worker.receive(10):
                finished += positions(rest)
                worker.acknowledge(*rest)
        assert sorted(finished) == [5, 8, 9, 10, 11, 12]
        assert all(proof.proved for proof in store.projections.verify("mail"))


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_two_servers_of_one_store_do_not_both_deliver(tmp_path: Path, engine: str) -> None:
    """The one that has the lease does; the other says so, and takes over when the first has ended."""
    path = str(tmp_path / "a.db") if engine == "sqlite" else postgres.shared().url(schema=f"s{uuid4().hex[:12]}")
    with ef.Store(path) as store, ServerProcess(path) as first, ServerProcess(path) as second:
        append(store, 4)
        with Worker(first.url, "mail") as one, Worker(second.url, "mail") as two:
            one.create()
            taken = one.receive()
            with pytest.raises(Refused) as refused:
                two.receive()
            assert (refused.value.status, refused.value.problem["code"]) == (503, "consumer-elsewhere")
            assert two.status()["in_flight"] is None
            one.acknowledge(*taken)
            (kept,) = one.receive()
            first.stop(signal.SIGKILL)
            others = two.receive(10)
            assert positions(others) == [3, 4]
            assert two.acknowledge(kept, *others) == {"done": 3, "stale": []}
            assert two.status()["lag"] == 0


CALLERS = {
    "all": ANYONE,
    "acme": Caller(name="acme", scopes=frozenset(Scope), tags=("tenant:acme",)),
    "blue": Caller(name="blue", scopes=frozenset(Scope), tags=("tenant:blue",)),
    "envelopes": Caller(name="envelopes", scopes=frozenset(Scope) - {Scope.READ_PAYLOAD}),
}


def test_consumers_of_tenants_are_separate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name, other events; neither sees the other's in a list; without read-payload no data is delivered."""

    async def authenticate(_: object, request: Request, __: object) -> Caller:
        return CALLERS[request.headers["authorization"]]

    monkeypatch.setattr("eventfold.server.asgi.Server.authenticate", authenticate)
    with served(tmp_path / "a.db") as (url, store):
        store.append_encoded(noted(1, "tenant:acme"), noted(2, "tenant:blue"), noted(3, "tenant:acme"))
        seen: dict[str, Any] = {}
        for name in CALLERS:
            with Worker(url, "mail", {"Authorization": name}) as worker:
                if name != "envelopes":
                    assert worker.create()["name"] == "mail"
                seen[name] = worker.receive(10)
                worker.path = "/v1/consumers"
                listed = [each["name"] for each in worker.call("GET")["consumers"]]
                assert listed == ["mail"] or name in ("all", "envelopes")
                if name == "all":
                    worker.path = "/v1/consumers/mail"
                    worker.reject(*seen["all"])
        assert {name: positions(deliveries) for name, deliveries in seen.items()} == {
            "all": [1, 2, 3],
            "acme": [1, 3],
            "blue": [2],
            "envelopes": [1, 2, 3],
        }
        assert all(each["event"]["data"] == {"$withheld": True} for each in seen["envelopes"])


def test_an_error_names_a_consumer_as_its_caller_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the name under which the consumer of a narrowed caller is stored."""

    async def authenticate(_: object, __: Request, ___: object) -> Caller:
        return CALLERS["acme"]

    monkeypatch.setattr("eventfold.server.asgi.Server.authenticate", authenticate)
    path, mail = str(tmp_path / "a.db"), "/v1/consumers/mail"
    ef.Store(path).close()
    with TestClient(application(path)) as client:
        missing = client.post(f"{mail}/receive", json={})
        assert missing.json()["title"] == "There is no consumer mail here."
        assert client.put(mail, json={"key": "order"}).status_code == 201
        other = client.put(mail, json={"key": "tenant"})
        retried = client.post(f"{mail}/retry", json={"position": 9})
        assert (other.status_code, retried.status_code) == (409, 409)
        assert all("mail-x" not in each.text for each in (missing, other, retried))
