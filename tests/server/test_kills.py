"""The server is killed under load: what was acknowledged is in the log once, and a repetition writes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventfold import Store
from soak.server_kills import kill_under_load, violations


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_when_the_server_is_killed_and_replies_are_lost(tmp_path: Path) -> None:
    """16 clients repeat each append, by ids or a key, until it is acknowledged."""
    store = str(tmp_path / "bank.db")
    Store(store).close()
    load = asyncio.run(kill_under_load(tmp_path, store, "1", kills=3))
    assert violations(load, store) == []
    assert load.counts["kills"] == 3
    assert load.counts["attempts without a reply"] > 0
    assert load.counts["replies lost"] > 0
    assert load.counts["repeated"] > 0, "an append was written and its reply was lost"
    assert len(load.acknowledged) == len(load.asked) >= 80


def test_the_check_finds_what_is_lost_and_what_is_doubled(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing."""
    store = str(tmp_path / "bank.db")
    Store(store).close()
    load = asyncio.run(kill_under_load(tmp_path, store, "2", kills=0))
    assert violations(load, store) == []
    name = next(iter(load.acknowledged))
    lost = {**load.acknowledged, "lost": load.acknowledged[name]}
    load.asked["lost"] = 1
    load.acknowledged = lost
    assert any("append lost was acknowledged" in each for each in violations(load, store))
    load.acknowledged[name] = {**load.acknowledged[name], "first": 0}
    assert any(f"append {name} was acknowledged at 0" in each for each in violations(load, store))
    del load.asked[name]
    assert any(f"the log has append {name}, which was not asked for" in each for each in violations(load, store))
