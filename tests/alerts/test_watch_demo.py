"""`eventfold demo watch`: a killed service is reported and then cleared, and the exit code says whether it held."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eventfold.demo import watch
from tests.cli.commands import run


def test_a_killed_service_is_reported_once_and_cleared_once(tmp_path: Path) -> None:
    """The message arrives, names the read model, and no order is lost; how fast it was depends on the machine."""
    ran = run("demo", "watch", "--db", str(tmp_path / "w.db"), "--json")
    found = json.loads(ran.out)
    assert found["raised_after"] > 0
    assert found["cleared_after"] > 0
    assert "customer_total is " in found["reason"]
    assert found["messages"] == 2
    assert found["orders"] == found["counted"] > 0
    assert found["holds"] == (found["raised_after"] <= watch.WITHIN_S)
    assert ran.code == (0 if found["holds"] else 1)


def test_an_existing_store_is_not_used(tmp_path: Path) -> None:
    """It would mix its orders with those of others."""
    (tmp_path / "w.db").write_bytes(b"")
    ran = run("demo", "watch", "--db", str(tmp_path / "w.db"))
    assert ran.code == 2
    assert "exists" in ran.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"raised_after": None}, "no message came"),
        ({"raised_after": 6.5}, "6.5 s after the kill, which is over 5 s"),
        ({"cleared_after": None}, "was not cleared"),
        ({"messages": 3}, "received 3 messages"),
        ({"counted": 4}, "5 orders were placed, and the read model has 4"),
    ],
)
def test_what_did_not_hold_is_said(change: dict[str, float], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each condition that fails has its sentence, and the exit code is 1."""
    held = {"raised_after": 1.0, "cleared_after": 1.0, "messages": 2, "orders": 5, "counted": 5}
    result = watch.Watched(**{**held, **change})  # type: ignore[arg-type]

    def watched(_db: str, _tell: object) -> watch.Watched:
        return result

    monkeypatch.setattr(watch, "watch", watched)
    said: list[str] = []
    assert watch.run(say=said.append) == 1
    assert words in said[-1]
