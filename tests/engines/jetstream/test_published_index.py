"""A host without an index restores a published copy of it; a copy that is damaged or of another log is passed over."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import nats
import pytest

import eventfold as ef
from eventfold.cluster.snapshot import publish_snapshot
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent
from eventfold.engines import open_engine
from eventfold.engines.jetstream.published_index import PARTIAL, Description
from eventfold.errors import InvalidInput, NotSupported
from tests.cli.commands import run as command
from tests.support.servers import nats as servers

pytestmark = servers.needed
SEEN = {"progress": lambda _done, _all: None}
EVENTS = 200


def events(count: int) -> list[NewEvent]:
    """Events of two accounts."""
    return [NewEvent.of("Deposited", b'{"n":%d}' % n, tags=[f"account:{n % 2}"]) for n in range(count)]


class Given:
    """A store in the cluster, and hosts, each with an index of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        run(require_creation(self.url("first")))
        with self.open("first") as store:
            store.append_encoded(*events(EVENTS))

    def url(self, host: str, **options: str) -> str:
        """The address, for a host."""
        return servers.shared().url(self.name, index=str(self.folder / f"{host}.db"), **options)

    def open(self, host: str, **options: str) -> ef.Store:
        """The store, opened on a host."""
        return ef.Store(self.url(host, **options))

    def published(self, to: Path | None = None, keep: int = 2) -> Description:
        """Publish the index of the first host."""
        return publish_snapshot(self.url("first"), to=None if to is None else str(to), keep=keep, **SEEN)

    def verify(self, host: str, *, restored: bool, **options: str) -> None:
        """Open the store on a new host, which reads everything, and say whether a copy was restored there."""
        with self.open(host, **options) as store:
            assert store.count() == EVENTS + 1
            assert store.count(ef.Query.of(tags="account:1")) == EVENTS // 2
            assert [each.position for each in store.read(after=EVENTS - 1, raw=True)] == [EVENTS, EVENTS + 1]
        assert not (self.folder / f"{host}.db{PARTIAL}").exists()
        assert self.was_restored(host) == restored

    def was_restored(self, host: str) -> bool:
        """Whether the index of a host has the time of creation of the first host's index, of which it is a copy."""
        created: list[int] = []
        for each in ("first", host):
            with ef.Store(str(self.folder / f"{each}.db"), readonly=True) as copy:
                created.append(copy.stats()["created"])
        return created[0] == created[1]

    def append_one(self) -> None:
        """Append an event that no published copy has."""
        with self.open("first") as store:
            store.append_encoded(*events(1))


def require_creation(url: str) -> object:
    """The call that creates a store."""
    creation = open_engine(url, "sync", True, {}).services.creation
    assert creation is not None
    return creation()


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """A store with events."""
    return Given(tmp_path, f"published-{uuid4().hex[:12]}")


def test_a_new_host_restores_a_copy_and_follows_from_there(given: Given) -> None:
    """A copy in the bucket of the cluster has the events up to its position; the rest is read from the log."""
    published = given.published()
    assert (published.position, published.epoch, published.chunks) == (EVENTS, 1, 1)
    given.append_one()
    given.verify("second", restored=True)


def test_a_copy_is_kept_in_a_folder_or_served_at_a_url(given: Given, tmp_path: Path) -> None:
    """`copies=` names the folder, or the URL where it is served."""
    folder = tmp_path / "copies"
    given.published(folder)
    given.append_one()
    given.verify("second", restored=True, copies=str(folder))
    with serving(folder) as url:
        given.verify("third", restored=True, copies=url)
    given.verify("fourth", restored=False, copies="http://127.0.0.1:9/nothing-there")


def serving(folder: Path) -> Serving:
    """Serve a folder over HTTP."""
    return Serving(folder)


class Serving:
    """A folder over HTTP, while the block runs."""

    def __init__(self, folder: Path) -> None:
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit of the first chunk": lambda folder, of: flip(folder / f"{of.name}.chunks", 900),
    "a bit of a chunk's digest": lambda folder, of: flip(folder / f"{of.name}.chunks", 20),
    "the length of a chunk": lambda folder, of: flip(folder / f"{of.name}.chunks", 1),
    "the end": lambda folder, of: (folder / f"{of.name}.chunks").write_bytes(
        (folder / f"{of.name}.chunks").read_bytes()[:-1]
    ),
    "nothing left": lambda folder, of: (folder / f"{of.name}.chunks").write_bytes(b""),
    "no file": lambda folder, of: (folder / f"{of.name}.chunks").unlink(),
    "the list": lambda folder, of: (folder / "copies.json").write_text("nothing"),
    "the digest of all": lambda folder, of: change(folder, digest="0" * 64),
    "the size": lambda folder, of: change(folder, bytes=of.bytes + 1),
    "the store": lambda folder, of: change(folder, store="0" * 32),
    "the epoch": lambda folder, of: change(folder, epoch=7),
    "the event": lambda folder, of: change(folder, event="0" * 32),
    "a position beyond the log": lambda folder, of: change(folder, position=of.position + 9),
    "the format": lambda folder, of: change(folder, format=2),
}


def change(folder: Path, **fields: object) -> None:
    """Change the description of the copy in a folder; its chunks get the name that it has then."""
    path = folder / "copies.json"
    (found,) = json.loads(path.read_text())
    path.write_text(json.dumps([found | fields]))
    (chunks,) = folder.glob("*.chunks")
    of = found | fields
    chunks.rename(folder / f"index-{of['store'][:8]}-{of['epoch']}-{of['position']:020}.chunks")


def test_a_copy_that_is_damaged_or_foreign_is_passed_over(
    given: Given, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with a copy, the log is read instead, and a warning says why."""
    folders: dict[str, Path] = {}
    for number, (name, damage) in enumerate(DAMAGE.items()):
        folders[name] = tmp_path / f"copies-{number}"
        damage(folders[name], given.published(folders[name]))
    given.append_one()
    for number, (name, folder) in enumerate(folders.items()):
        with caplog.at_level(logging.WARNING, logger="eventfold"):
            caplog.clear()
            given.verify(f"host-{number}", restored=False, copies=str(folder))
        assert str(folder) in caplog.text, name


def test_a_bucket_that_lacks_a_chunk_is_passed_over(given: Given, caplog: pytest.LogCaptureFixture) -> None:
    """A chunk that a program deleted, or that no replica has, is noticed by its number."""
    given.published()
    given.append_one()

    async def purge() -> None:
        client = await nats.connect(servers.shared().servers())
        subject = f"$O.EF_{given.name}_index.C.>"
        await client.jetstream().purge_stream(f"OBJ_EF_{given.name}_index", subject=subject)
        await client.close()

    asyncio.run(purge())
    given.verify("second", restored=False)
    assert "is not used" in caplog.text


def test_an_older_copy_is_used_if_the_newest_is_damaged(given: Given, tmp_path: Path) -> None:
    """Copies are tried from the newest on."""
    folder = tmp_path / "copies"
    given.published(folder)
    given.append_one()
    newest = given.published(folder)
    assert newest.position == EVENTS + 1
    flip(folder / f"{newest.name}.chunks", 900)
    given.verify("second", restored=True, copies=str(folder))


def test_only_the_newest_copies_are_kept(given: Given, tmp_path: Path) -> None:
    """Publishing removes what is older than the newest few, in the bucket and in a folder."""
    folder = tmp_path / "copies"
    for _ in range(3):
        last = given.published(keep=1)
        given.published(folder, keep=2)
        given.append_one()

    async def names() -> list[str | None]:
        client = await nats.connect(servers.shared().servers())
        store = await client.jetstream().object_store(f"EF_{given.name}_index")
        found = [each.name for each in await store.list()]
        content = await store.get(last.name)
        assert content.data is not None
        assert len(content.data) == last.packed
        await client.close()
        return found

    assert asyncio.run(names()) == [last.name]
    assert len(list(folder.glob("*.chunks"))) == len(json.loads((folder / "copies.json").read_text())) == 2


def test_two_processes_of_one_host_restore_one_copy(given: Given) -> None:
    """The second waits for the first, and uses its file; what a killed process left is replaced."""
    given.published()
    (given.folder / f"second.db{PARTIAL}").write_bytes(b"left by a process that was killed")
    counts: list[int] = []

    def opened() -> None:
        with given.open("second") as store:
            counts.append(store.count())

    threads = [threading.Thread(target=opened) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert counts == [EVENTS] * 3
    assert given.was_restored("second")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[str]:
    """The address of a store without events."""
    url = servers.shared().url(f"empty-{uuid4().hex[:12]}", index=str(tmp_path / "empty.db"))
    run(require_creation(url))
    yield url


def test_what_cannot_be_published_is_refused(empty: str, tmp_path: Path) -> None:
    """An empty log, a store that is no cluster, a URL, and no copies at all."""
    with pytest.raises(InvalidInput):
        publish_snapshot(empty, to=None, keep=1, **SEEN)
    with pytest.raises(InvalidInput):
        publish_snapshot(empty, to=None, keep=0, **SEEN)
    with pytest.raises(NotSupported):
        publish_snapshot(str(tmp_path / "file.db"), to=None, keep=1, **SEEN)
    with ef.Store(empty) as store:
        store.append_encoded(*events(1))
    with pytest.raises(InvalidInput):
        publish_snapshot(empty, to="http://127.0.0.1:9/", keep=1, **SEEN)


def test_the_command_says_what_it_published(given: Given, tmp_path: Path) -> None:
    """`eventfold cluster snapshot` prints name, events and sizes, or the description as JSON."""
    ran = command("cluster", "snapshot", given.url("first"), "--to", str(tmp_path / "copies"), "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["position"] == EVENTS
    ran = command("cluster", "snapshot", given.url("first"), "--table")
    assert ran.code == 0, ran.err
    assert f"{EVENTS} events" in ran.out
    given.append_one()
    given.verify("second", restored=True)
