"""`verify` on processes and effects: by class, by name and by address, split by key or not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.processes import decide, effect
from tests.cli.commands import run
from tests.processes.shop import OrderPlaced, Paid, Stock, reserve


class Split(ef.Process, name="verified_split", start="beginning", partitions=3):
    """A process whose work is split by key."""

    order: ef.Tag

    def evolve(self, event: OrderPlaced) -> None:
        """Nothing to remember."""

    def react(self, event: OrderPlaced) -> Iterator[Any]:
        """Reserve the item."""
        yield decide(reserve, Stock("bolt"), self.order, 1)


@effect(start="beginning", name="verified_mail", partitions=2, key="order")
def mail(event: Paid) -> None:
    """An effect whose work is split by key."""


def worked(store: ef.Store) -> None:
    """Process several orders, each placed and paid."""
    for number in range(8):
        store.append(OrderPlaced(f"o-{number}"), Paid(f"o-{number}"))
    store.run_until_idle(Split, mail)


@pytest.mark.parametrize(
    "named", [(), ("verified_split", "verified_mail"), (Split, mail)], ids=["all", "names", "code"]
)
def test_a_process_that_is_split_by_key_is_proved(store: ef.Store, named: tuple[Any, ...]) -> None:
    """Each partition is counted with the key of its class, which is found by its address or was given."""
    worked(store)
    proofs = store.projections.verify(*named)
    assert [(proof.name, proof.proved) for proof in proofs if not proof.proved] == []
    assert sum(proof.counted for proof in proofs if proof.name == "verified_split") == 8
    assert sum(proof.counted for proof in proofs if proof.name == "verified_mail") == 8
    assert len({(proof.name, proof.partition) for proof in proofs}) == 5


def test_a_class_that_cannot_be_imported_keeps_no_other_from_being_proved(
    store: ef.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A projection that needs it is not proved and reported so; the others are proved."""
    (tmp_path / "verified_elsewhere.py").write_text(
        "import eventfold as ef\n"
        "from tests.processes.shop import OrderPlaced\n"
        "class Gone(ef.Process, name='verified_gone', start='beginning', partitions=3):\n"
        "    order: ef.Tag\n"
        "    def evolve(self, event: OrderPlaced) -> None: ...\n"
        "    def react(self, event: OrderPlaced): return []\n"
    )
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(tmp_path))
        gone = importlib.import_module("verified_elsewhere").Gone
        worked(store)
        store.run_until_idle(gone)
        del sys.modules["verified_elsewhere"]
    proofs = {(proof.name, proof.partition): proof for proof in store.projections.verify()}
    split = [proof for (name, _), proof in proofs.items() if name == "verified_gone"]
    assert len(split) == 3
    assert not any(proof.proved for proof in split)
    assert all("MODULE:CLASS" in proof.verdict for proof in split)
    assert all(proof.proved for (name, _), proof in proofs.items() if name != "verified_gone")


def test_the_command_proves_processes_and_effects(tmp_path: Path) -> None:
    """It exits 0, whether they are named by address or by name, or not at all."""
    url = str(tmp_path / "store.db")
    with ef.Store(url) as store:
        worked(store)
    here = "tests.processes.test_verify"
    for words in ((), (f"{here}:Split",), (f"{here}:mail", "verified_split"), ("--rows",)):
        ran = run("verify", url, *words, "--no-log")
        assert ran.code == 0, ran
        assert all(line["proved"] for line in ran.lines)
