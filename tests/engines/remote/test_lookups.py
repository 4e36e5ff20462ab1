"""Look-ups through a server: as complete as those of the store behind it."""

from __future__ import annotations

from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidQuery
from eventfold.ports import engine_messages
from eventfold.testing.conformance.events import Noted


def test_more_tags_than_one_answer_has_are_fetched_by_several(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that asks for all of them is not left with the first ones."""
    with ef.Store(address) as store:
        store.append(*[Noted("a")] * 10)
        before = set(store.tag_names())
        store.append_encoded(*[ef.NewEvent.of("Noted", b"{}", tags=[f"n{n}:{n}"]) for n in range(8)])
        whole = [store.tags(limit=100), store.tag_names(limit=100), store.tag_keys(limit=100)]
        assert len(whole[1]) == len(before) + 8
        for most in (1, 3, 8, 9):
            monkeypatch.setattr(engine_messages, "MAX_NAMES", most)
            assert [store.tags(limit=100), store.tag_names(limit=100), store.tag_keys(limit=100)] == whole
            assert store.tag_names("n", limit=5) == [f"n{n}:{n}" for n in range(5)]
            assert store.tag_names("n", limit=0) == []


@pytest.mark.parametrize("limit", [-1, "x", None, 1.5])
def test_a_limit_that_is_no_number_is_refused_by_every_store(address: str, limit: Any) -> None:
    """SQLite took -1 for all tags, and a server for none."""
    for where in ("memory:", address):
        with ef.Store(where) as store:
            for ask in (store.tags, store.tag_names, store.tag_keys):
                with pytest.raises(InvalidQuery, match="limit="):
                    ask(limit=limit)
                assert ask(limit=2**70) == []
