"""Inline read models from the command line, which has their code only if it can import it."""

from __future__ import annotations

from pathlib import Path

import eventfold as ef
from tests.cli.commands import run
from tests.projections.inline.bank import InlineBalance, InlineMoved, balances


def test_the_command_line_cannot_append_but_can_rebuild_switch_and_remove(tmp_path: Path) -> None:
    """An append without the code is refused with a message; rows are rebuilt and switched, verified, and removed."""
    url = str(tmp_path / "store.db")
    append = ("append", url, "InlineMoved", "--tag", "account:a", "--data", '{"account":"a","amount":3}')
    with ef.Store(url, inline=[InlineBalance]) as store:
        store.append(InlineMoved("a", 1))
        refused = run(*append)
        assert refused.code == 1
        assert "inline_balance is folded within every append of InlineMoved" in refused.err
        assert f"eventfold projections remove {url} inline_balance" in refused.err
        assert run("projections", "status", url).lines[0]["sentence"] == "Inline: current with every append."
        assert run("projections", "rebuild", url, "inline_balance", "--switch").code == 0
        store.append(InlineMoved("a", 2))
        assert balances(store) == {"a": 3}
        assert run("verify", url).code == 0
        assert run("projections", "pause", url, "inline_balance", "--because", "x").code == 2
        assert run("projections", "remove", url, "inline_balance").code == 0
        assert run(*append).code == 0
        assert store.append(InlineMoved("a", 13)).last == store.head()
