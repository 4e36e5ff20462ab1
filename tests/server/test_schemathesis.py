"""Calls made from the OpenAPI document: no answer is a defect of the server, and none differs from its description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.server import projection_rows
from tests.server.generated_calls import bank_server, call_each, follow_links

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a server over a bank, and the header with a key. A read waits only briefly."""
    monkeypatch.setattr(projection_rows, "WAIT_S", 0.02)
    with bank_server(tmp_path) as found:
        yield found


def test_every_operation_answers_generated_calls_as_it_is_described(bank: tuple[str, dict[str, str]]) -> None:
    """Also those that the document forbids, and those without a credential."""
    calls, wrong = call_each(*bank, examples=5, seed=25)
    assert wrong == []
    assert calls > 250


def test_chains_of_calls_along_the_links_are_answered_as_described(bank: tuple[str, dict[str, str]]) -> None:
    """Append, then read by id and position; list, then ask for one and change it."""
    assert follow_links(*bank, examples=10, steps=6, seed=25) > 30
