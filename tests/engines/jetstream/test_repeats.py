"""Repeats are recognised however old they are, on any host: by the log, not by what a server remembers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.engines.jetstream import request_keys as module
from eventfold.engines.jetstream.failures import ApiFailure
from eventfold.engines.jetstream.request_keys import Assigned
from eventfold.errors import AppendUnconfirmed, EventIdReused, StoreUnavailable
from eventfold.ports.services import require
from tests.engines.jetstream.conftest import Open
from tests.engines.jetstream.writers import Booked, forwarding_of, in_threads, let_hold, on_loop, session_of
from tests.support.servers.nats import shared
from tests.support.stores import ask, stream_of

WINDOW_S = 0.1  # the shortest that a server accepts


def one(by: str = "x") -> ef.Draft:
    """An event with an id of its own."""
    return ef.Draft(Booked("all", by), id=uuid4())


def assign(store: ef.Store, record: Assigned) -> None:
    """Store a record of a key, as another process may have done at any moment."""
    bucket = session_of(store).keys._bucket
    on_loop(store, lambda: bucket.put(module._name(record.key), module._encode(record)))


def test_repeats_are_recognised_beyond_the_servers_window(url: str, opening: Open) -> None:
    """The same ids, the same key, other content: on other hosts, by an index that was just made, and by the holder."""
    stream = stream_of(url)
    config = ask(shared(), f"STREAM.INFO.{stream}")["config"]
    ask(shared(), f"STREAM.UPDATE.{stream}", {**config, "duplicate_window": int(WINDOW_S * 1e9)})
    first, keyed = [one("a"), one("b")], one("c")
    here = opening()
    receipts = here.append(*first), here.append(keyed, key="k")
    here.append(*[one() for _ in range(30)])
    time.sleep(3 * WINDOW_S)
    there, holder = opening(), opening()
    assert there.append(*first).first == receipts[0].first
    let_hold(holder, there)
    for store in (there, holder, opening()):
        again, by_key, by_id = store.append(*first), store.append(one("other"), key="k"), store.append(keyed)
        assert (again.ids, again.digest, again.time) == (receipts[0].ids, receipts[0].digest, receipts[0].time)
        assert (by_key.ids, by_id.ids) == (receipts[1].ids, receipts[1].ids)
        assert again.repeated and by_key.repeated and by_id.repeated
        with pytest.raises(EventIdReused):
            store.append(ef.Draft(Booked("all", "changed"), id=first[0].id))
    assert forwarding_of(there).forwarded > 0
    assert here.head() == 33


def test_a_key_that_was_assigned_later_is_known_on_every_host(opening: Open, tmp_path: Path) -> None:
    """It is in no message of the stream: hosts find it beside, also one whose index was just made; copies have it."""
    draft = one()
    first = opening().append(draft)
    assert opening().append(draft, key="k").repeated
    for store in (opening(), opening(consistency="local")):
        again = store.append(one("other"), key="k")
        assert (again.ids, again.repeated) == (first.ids, True)
        assert store.receipt("k") == first
        assert run(require(store.engine, "replication").keys()) == [("k", 1)]
    assert store.head() == 1


def test_of_callers_that_assign_one_key_the_first_wins(opening: Open) -> None:
    """Each repeats an append of its own with the same new key: all get the receipt of the one that has it now."""
    stores = [opening() for _ in range(3)]
    drafts = [one(f"{number}") for number in range(9)]
    for each in drafts:
        stores[0].append(each)
    found: list[ef.Receipt] = []
    in_threads(
        *(lambda n=n, each=each: found.append(stores[n % 3].append(each, key="k")) for n, each in enumerate(drafts))
    )
    assert len({receipt.first for receipt in found}) == 1
    assert {store.append(one(), key="k").first for store in stores} == {found[0].first}
    assert stores[0].head() == len(drafts)


def test_a_key_in_the_log_has_precedence_over_one_beside_it(opening: Open) -> None:
    """An append with the key was written while another process assigned it: every host returns the one in the log."""
    here, there = opening(), opening()
    here.append(one())
    written = here.append(one(), key="k")
    id = run(here.engine.event_id(1))
    assert id is not None
    assign(there, Assigned("k", 1, id))
    for store in (here, there, opening()):
        assert store.append(one("other"), key="k").first == written.first == 2
        assert store.receipt("k") == written
        assert run(require(store.engine, "replication").keys()) == [("k", 2)]


def test_a_key_of_an_append_that_the_log_has_lost_is_free(opening: Open) -> None:
    """A record of an event that is not in the log, as after a restore, names no append, and is replaced."""
    store, draft = opening(), one()
    first = store.append(draft)
    assign(store, Assigned("gone", 7, b"g" * 16))
    assign(store, Assigned("other", 1, b"o" * 16))
    assert (store.receipt("gone"), store.receipt("other")) == (None, None)
    assert store.append(draft, key="other").repeated
    assert opening().receipt("other") == first
    assert store.append(one(), key="gone").first == 2


def test_many_keys_are_looked_up_one_by_one(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that would have to read more records than a limit asks for its own keys only."""
    monkeypatch.setattr(module, "MAX_LOADED", 2)
    store, draft = opening(), one()
    first = store.append(draft)
    for number in range(5):
        assert store.append(draft, key=f"k{number}").repeated
    fresh = opening()
    assert fresh.append(one("other"), key="k3").first == first.first
    assert fresh.append(one("other"), key="new").first == 2
    assert len(run(require(fresh.engine, "replication").keys())) == 6


def let_an_old_leader_answer(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next batch be written, and its answer be that of another leader, which knows fewer events."""
    writer = session_of(store).writer
    publish, answers = writer._publish, [ApiFailure(400, 10071, "wrong last sequence: 0")]

    async def refused(*arguments: Any) -> ApiFailure | None:
        answer = await publish(*arguments)
        return answers.pop() if answers and answer is None else answer

    monkeypatch.setattr(writer, "_publish", refused)


@pytest.mark.parametrize("count", [1, 3])
def test_an_append_that_an_old_leader_refuses_and_the_new_one_writes_is_no_repetition(
    opening: Open, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """While a node that was cut off believes that it leads, a batch reaches both; the first answer decides nothing."""
    here = opening()
    let_an_old_leader_answer(here, monkeypatch)
    drafts = [one() for _ in range(count)]
    receipt = here.append(*drafts, key="k")
    assert (receipt.first, receipt.last, receipt.repeated) == (1, count, False)
    assert opening().append(*drafts, key="k").repeated
    assert here.head() == count


def test_an_append_that_an_old_leader_refuses_is_unconfirmed_until_the_stream_is_asked(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known that nothing was written."""
    here = opening().using(attempts=1)
    let_an_old_leader_answer(here, monkeypatch)

    async def fail(*_: Any) -> bytes:
        raise StoreUnavailable("No leader answers.", "Nothing was written: try again.")

    monkeypatch.setattr(session_of(here).reader, "commit_at", fail)
    monkeypatch.setattr(session_of(here), "last_sequence", fail)
    with pytest.raises(AppendUnconfirmed, match="No leader answers"):
        here.append(one())
