"""Settings from a file, the environment and flags: which one counts, what is refused, and what is printed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from eventfold.errors import InvalidInput
from eventfold.server.access.settings import Secret
from eventfold.server.settings import Settings
from eventfold.server.settings_sources import Loaded, load_settings
from eventfold.server.settings_text import MASK, is_secret, settings_text


class Keys(msgspec.Struct, frozen=True):
    """A section with a secret."""

    secret: Secret = "hunter2"


class Other(Settings, frozen=True, kw_only=True):
    """Settings with a secret."""

    keys: Keys = Keys()


def toml(folder: Path, text: str) -> Path:
    """A file of settings."""
    path = folder / "server.toml"
    path.write_text(text, "utf-8")
    return path


def test_flags_override_the_environment_and_that_overrides_the_file(tmp_path: Path) -> None:
    """Each value has the place that gave it."""
    server = "[server]\nport = 1\nhost = 'a'\nunix_socket = '/s'\n"
    file = toml(tmp_path, f"read_only = true\n{server}[stores]\nx = 'x.db'\n")
    loaded = load_settings(
        file,
        {"EVENTFOLD_SERVER__PORT": "2", "EVENTFOLD_SERVER__HOST": "b", "EVENTFOLD_STORES__Y": "y.db"},
        {("server", "port"): ("--port", 3), ("stores", "z"): ("--store", "z.db")},
    )
    used = loaded.settings.server
    assert (used.port, used.host, used.unix_socket, loaded.settings.read_only) == (3, "b", "/s", True)
    assert loaded.settings.stores == {"x": "x.db", "y": "y.db", "z": "z.db"}
    assert loaded.places[("server", "port")] == "--port"
    assert loaded.places[("server", "host")] == "EVENTFOLD_SERVER__HOST"
    assert loaded.places[("server", "unix_socket")] == str(file)
    assert ("limits", "body_bytes") not in loaded.places


def test_texts_of_the_environment_become_numbers_truth_values_and_lists() -> None:
    """A variable has no type of its own."""
    settings = load_settings(
        None,
        {
            "EVENTFOLD_MODULES": "bank, shop.events",
            "EVENTFOLD_READ_ONLY": "true",
            "EVENTFOLD_LIMITS__HEADER_SECONDS": "1.5",
            "EVENTFOLD_URL": "bank.db",  # belongs to the commands
            "EVENTFOLD_SLOW": "1",
        },
    ).settings
    assert settings.modules == ("bank", "shop.events")
    assert settings.read_only is True
    assert settings.limits.header_seconds == 1.5


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("[server]\nprot = 1\n", {}, ["server.prot", "server.toml", "Did you mean server.port?"]),
        ("[sever]\nport = 1\n", {}, ["sever", "Did you mean server?"]),
        ("", {"EVENTFOLD_SERVER__PROT": "1"}, ["EVENTFOLD_SERVER__PROT", "Did you mean EVENTFOLD_SERVER__PORT?"]),
        ("[server]\nport = '1'\n", {}, ["server.port", "server.toml", "expected int, got str"]),
        ("[server]\nport = 70000\n", {}, ["server.port", "<= 65535"]),
        ("[logs]\nformat = 'xml'\n", {}, ["logs.format", "xml"]),
        ("", {"EVENTFOLD_SERVER__PORT": "many"}, ["server.port", "EVENTFOLD_SERVER__PORT"]),
        ("", {"EVENTFOLD_SERVER__PORT__X": "1"}, ["EVENTFOLD_SERVER__PORT__X"]),
        ("server = 1\n", {}, ["server in", "Write a table: [server]."]),
        ("[server\n", {}, ["server.toml are not TOML", "line 1"]),
        ("stores = {bank = 7}\n", {}, ["stores.bank", "expected str"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_with_its_name_and_its_source(
    tmp_path: Path, text: str, variables: dict[str, str], words: list[str]
) -> None:
    """And an unknown name with the most similar one."""
    with pytest.raises(InvalidInput) as caught:
        load_settings(toml(tmp_path, text), variables)
    message = str(caught.value)
    assert not [word for word in words if word not in message], message


def test_a_file_that_is_missing_or_not_a_text_is_refused(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(InvalidInput, match=r"none.toml cannot be read: no such file"):
        load_settings(tmp_path / "none.toml")
    (tmp_path / "image").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="image are not TOML"):
        load_settings(tmp_path / "image")


def test_the_printed_settings_give_the_same_settings_again(tmp_path: Path) -> None:
    """The text is TOML, and says where each value comes from."""
    loaded = load_settings(
        None,
        {"EVENTFOLD_MODULES": 'a"b,c\\d'},
        {("stores", "main store"): ("--store", "a.db"), ("server", "unix_socket"): ("--unix-socket", "/s\x7f")},
    )
    text = settings_text(loaded)
    assert load_settings(toml(tmp_path, text)).settings == loaded.settings
    assert "port = 8000  # default" in text
    assert '"main store" = "a.db"  # --store' in text
    assert set(msgspec.to_builtins(Settings())) - {"stores"} <= {*tomllib.loads(text), "modules"}


def test_secrets_and_passwords_are_not_printed() -> None:
    """A password can be a part of an address, or a parameter of it; so can the key of a server."""
    stores = {
        ("stores", "a"): ("--store", "postgresql://eve:hunter2@db/bank"),
        ("stores", "b"): ("--store", "postgresql://db/bank?user=eve&password=hunter2&x=1"),
        ("stores", "c"): ("--store", "postgresql://db/bank?user=eve&sslpassword=hunter2"),
        ("stores", "d"): ("--store", "https://hunter2@bank.example.com/v1/stores/bank"),
    }
    text = settings_text(load_settings(None, {}, stores))
    assert "hunter2" not in text
    assert "eve" in text
    assert is_secret(Secret)
    assert is_secret(Secret | None)
    assert is_secret(tuple[Secret, ...])
    assert not is_secret(str | None)

    shown = settings_text(Loaded(Other(), {}))
    assert "hunter2" not in shown
    assert MASK in shown
