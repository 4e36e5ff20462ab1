"""Misspelt options are refused, with the nearest correct name; none is silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput, StoreNotFound


class Optioned(ef.Event):
    who: ef.Tag


@pytest.mark.parametrize(
    ("given", "meant"), [("retries", "attempts"), ("atempts", "attempts"), ("comand_id", "command_id")]
)
def test_a_misspelt_option_is_no_metadata(given: str, meant: str) -> None:
    """What must be a misspelt option is refused, and not written beside every event from then on."""
    with ef.Store("memory:") as store, pytest.raises(InvalidInput) as refused:
        store.using(**{given: 3})
    assert f"{meant}=…" in refused.value.remedy


def test_any_other_name_is_metadata() -> None:
    """Names that are no option, nor nearly one, are metadata; so is a misspelt one, set by the context."""
    with ef.Store("memory:") as store:
        store.using(actor="me", tenant=7).append(Optioned("a"))
        with store.context(retries=3):
            store.append(Optioned("b"))
        first, second = store.read()
        assert (first.metadata.get("tenant"), second.metadata.get("retries")) == (7, 3)


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
def test_an_option_that_an_engine_does_not_have(engine: str, tmp_path: Path) -> None:
    """Is refused with those it has, in words, before anything is made."""
    url = "memory:" if engine == "memory" else str(tmp_path / "log.db")
    with pytest.raises(InvalidInput, match="no option 'klock'"):
        ef.Store(url, klock=3)
    assert not (tmp_path / "log.db").exists()


def test_a_log_in_memory_is_made_only_where_that_was_allowed() -> None:
    """`create=False` means the same on every engine."""
    with pytest.raises(StoreNotFound):
        ef.Store("memory:nowhere-to-be-found", create=False)
    with ef.Store("memory:somewhere"):
        ef.Store("memory:somewhere", create=False).close()


def test_a_receipt_is_short_to_look_at() -> None:
    """Its positions and time; ids and digest are there for those who ask."""
    with ef.Store("memory:") as store:
        receipt = store.append(Optioned("a"), Optioned("b"))
    assert repr(receipt).startswith("<Receipt of positions 1 to 2 at 20")
    assert len(repr(receipt)) < 80
