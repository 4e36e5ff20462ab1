"""The word STORE in the commands of messages becomes the store's address, which can be pasted and shows no secret."""

from __future__ import annotations

import logging
import re
import shlex
import time
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.core.store_address import StoreAddress, store_address
from eventfold.engines.addresses import without_secrets
from eventfold.errors import ProjectionStopped, UnknownProjection
from tests.cli.commands import run

PACKAGE = Path(ef.__file__).parent


class ParcelSent(ef.Event, type="store-address-sent"):
    """A parcel was sent."""

    parcel: ef.Tag


class Parcels(ef.Projection, name="parcels"):
    """A read model that fails."""

    parcel: str

    def evolve(self, event: ParcelSent) -> None:
        """Fail."""
        raise ValueError("stuck")


ADDRESSES = {
    "shop.db": "shop.db",
    "my shop.db": "'my shop.db'",
    "postgresql://app:s3cret@host/db?schema=shop": "'postgresql://app:…@host/db?schema=shop'",
    "https://efk_s3cret@host/shop": "'https://…@host/shop'",
    "nats://a,b/shop?system=sys:s3cret": "'nats://a,b/shop?system=sys:…'",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_command_names_the_store_as_a_shell_needs_it_and_without_secrets(address: str) -> None:
    """Quoted, and with the password, the key and the system account's password left out."""
    text = store_address(address, None, without_secrets).in_text("Rebuild it (eventfold projections rebuild STORE x).")
    assert text == f"Rebuild it (eventfold projections rebuild {ADDRESSES[address]} x)."
    assert "s3cret" not in text


def test_only_the_store_of_a_command_is_replaced() -> None:
    """A word STORE elsewhere, and a longer word, stay; several commands are all completed."""
    name = StoreAddress("a.db")
    assert (
        name.in_text("The STORE is full: eventfold run STORES, STORE.")
        == "The STORE is full: eventfold run STORES, STORE."
    )
    assert (
        name.in_text("eventfold run STORE m; eventfold verify STORE") == "eventfold run a.db m; eventfold verify a.db"
    )


def test_the_database_of_read_models_is_named_where_a_command_takes_it() -> None:
    """`projections`, `processes` and `run` have --target; `verify` finds read models by their classes."""
    name = StoreAddress("a.db", "rows.db")
    assert name.in_text("eventfold run STORE m") == "eventfold run a.db --target rows.db m"
    assert name.in_text("eventfold verify STORE") == "eventfold verify a.db"


@pytest.mark.parametrize("address", ["memory:", "memory:shop", object()])
def test_a_store_that_no_shell_can_open_stays_a_word(address: object) -> None:
    """A log in memory and an engine object have no address that a command could take."""
    assert store_address(address, None, without_secrets).in_text("eventfold run STORE m") == "eventfold run STORE m"


def test_every_command_for_a_projection_names_a_store() -> None:
    """In each message of the package the word STORE, or the address, follows `eventfold projections VERB`."""
    lacks = re.compile(r"eventfold projections [a-z]+(?![a-z`]| STORE| \{| \.\+).{0,20}")
    examples = PACKAGE / "cli" / "command.py"
    found = [
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in PACKAGE.rglob("*.py")
        if path != examples
        for text in lacks.findall(path.read_text())
    ]
    assert not found


def test_an_error_names_the_store_and_its_command_works_when_pasted(tmp_path: Path) -> None:
    """The error of `store.project` has the address, in a path with a blank; the command that it gives is accepted."""
    path = tmp_path / "my store.db"
    with ef.Store(path) as store:
        store.append(ParcelSent("b"))
        with pytest.raises(ProjectionStopped) as stopped:
            store.project(Parcels)
    assert str(stopped.value) == f"{stopped.value.what} {stopped.value.remedy}"
    command = re.search(r"eventfold (projections resume .+ parcels)\)", stopped.value.remedy)
    assert command is not None
    assert run(*shlex.split(command[1])).code == 0


def test_a_runner_logs_and_keeps_errors_with_the_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it logs, and what `failed` has, can be pasted, too."""
    path = tmp_path / "store.db"
    with caplog.at_level(logging.WARNING, "eventfold"), ef.Store(path) as store, store.run(Parcels) as running:
        store.append(ParcelSent("b"))
        ends = time.monotonic() + 60
        while f"eventfold projections resume {path} parcels" not in caplog.text:
            assert time.monotonic() < ends, caplog.text
            time.sleep(0.02)
        assert running.running


def test_commands_print_addresses_in_place_of_the_word(tmp_path: Path) -> None:
    """The status, an unknown name and a paused read model: what the command line prints can be pasted."""
    path = str(tmp_path / "store.db")
    with ef.Store(path) as store:
        store.append(ParcelSent("b"))
        with pytest.raises(ProjectionStopped):
            store.project(Parcels)
    (status,) = run("projections", "status", path).lines
    assert f"eventfold projections resume {path} parcels" in status["sentence"]
    assert f"eventfold projections list {path}." in run("projections", "show", path, "parcel").err


def test_an_error_that_was_completed_is_left_as_it_is() -> None:
    """Completed twice, as by a store within a command, it names the first address."""
    error = UnknownProjection("None.", "Run it: eventfold run STORE m.")
    for address in ("a.db", "b.db"):
        StoreAddress(address).in_error(error)
    assert error.remedy == "Run it: eventfold run a.db m."
    assert error.args == ("None. Run it: eventfold run a.db m.",)
