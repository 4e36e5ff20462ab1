"""Several runners: each state is sent once while they live, and at least once with the same key through kill -9."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import eventfold as ef
from eventfold.alerts.delivery.message import MESSAGE
from tests.alerts.delivery.facts import cleared, micros, raised, record, until
from tests.alerts.delivery.killed import pager
from tests.alerts.delivery.receiving import receiving

ROOT = Path(__file__).parents[3]


def messages(store: ef.Store) -> list[str]:
    """The ids of the messages in the log."""
    return [str(each.id) for each in store.read(raw=True) if each.type == MESSAGE]


def test_two_runners_send_each_state_once(tmp_path: Path) -> None:
    """Both plan and both could send: one message of each state is written, and sent by the holder of the lease."""
    url = str(tmp_path / "shop.db")
    with receiving() as receiver, ef.Store(url) as one, ef.Store(url) as two:
        with one.run(pager(receiver.url)), two.run(pager(receiver.url)):
            facts = [raised(f"c-{number}", micros() + number, f"Alert{number}") for number in range(20)]
            threads = [
                threading.Thread(target=record, args=(store, *facts[at::2])) for at, store in ((0, one), (1, two))
            ]
            for thread in threads:
                thread.start()
            until(lambda: len(receiver.received) >= 20)
            record(one, *(cleared(fact, micros()) for fact in facts))
            until(lambda: len(receiver.received) >= 40)
        assert sorted(receiver.states()) == sorted(
            f"{state} c-{number}" for number in range(20) for state in ("raised", "cleared")
        )
        assert sorted(one_id for one_id, _ in receiver.received) == sorted(messages(one))


def test_a_killed_runner_loses_no_message_and_repeats_it_under_its_id(tmp_path: Path) -> None:
    """One is killed while it waits for the answer of the receiver; the next one sends the message again."""
    url = str(tmp_path / "shop.db")
    with receiving() as receiver, ef.Store(url) as store:
        command = [sys.executable, "-W", "ignore", "-m", "tests.alerts.delivery.killed", url, receiver.url]
        for number in range(3):
            receiver.blocking.clear()
            receiver.blocked.set()
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None and process.stdout.readline() == "runs\n"
                record(store, raised(f"c-{number}", micros()))
                # Its own message is written first: a repeat of the message before it may block the receiver earlier,
                # and two facts that the next runner finds without a message are announced in one.
                until(lambda written=number + 1: len(messages(store)) == written)
                until(receiver.blocking.is_set)
                process.kill()
            receiver.blocked.clear()
        with store.run(pager(receiver.url)):
            until(lambda: {f"raised c-{number}" for number in range(3)} <= set(receiver.states()))
            until(lambda: set(messages(store)) == {each for each, _ in receiver.received})
        by_id = {each: body["data"]["episodes"][0]["key"] for each, body in receiver.received}
        assert sorted(by_id.values()) == ["c-0", "c-1", "c-2"], "a repeat has the id of the first attempt"
        assert len(messages(store)) == 3
